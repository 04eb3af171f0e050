//! What is wrong, as operators are told: what, why most likely, and what to do next. Judged by the node itself, so that every
//! client is told the same.

use serde::Serialize;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// How bad it is; the worst come first.
    pub severity: Severity,
    /// Which kind of problem it is, for programs: a name that stays.
    pub kind: &'static str,
    /// What is wrong, and where.
    pub what: String,
    /// Why, most likely.
    pub cause: String,
    /// What to do next, with the command.
    pub next: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// All works, but with less to fall back on, or not for long.
    Warning,
}

impl Problem {
    /// Something does not work.
    pub fn error(kind: &'static str, what: String, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { severity: Severity::Error, kind, what, cause: cause.into(), next: next.into() }
    }

    /// Something works, but not as it should.
    pub fn warning(kind: &'static str, what: String, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, kind, what, cause: cause.into(), next: next.into() }
    }
}

/// How long a certificate lasts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// Days from now until it expires; negative once it has.
    pub days_left: f64,
    /// Days for which it is valid in all.
    pub days: f64,
}

/// A certificate that lasts for less is about to expire, unless it is short-lived.
const SOON_DAYS: f64 = 7.0;

impl Certificate {
    /// Whether it has expired.
    pub fn is_expired(&self) -> bool {
        self.days_left <= 0.0
    }

    /// Whether it should have been replaced by now: in its last week, or in the last third of its life where that is shorter.
    pub fn expires_soon(&self) -> bool {
        self.days_left < SOON_DAYS.min(self.days / 3.0)
    }

    /// What is wrong with it as the node's own, by which it is `identity`.
    pub fn judge(&self, identity: &str) -> Option<Problem> {
        const CAUSE: &str = "nobody has renewed it: certificates in files are renewed from outside";
        let next = "issue a new one (`eastway ca issue --force`, or your own CA) into the files that `identity` names: they are \
                    read within seconds, without a restart";
        let left = span(self.days_left);
        match () {
            () if self.is_expired() => Some(Problem::error(
                "certificate_expired",
                format!("the certificate of {identity} expired {left} ago: other nodes refuse it"),
                CAUSE,
                next,
            )),
            () if self.expires_soon() => Some(Problem::warning(
                "certificate_expiring",
                format!("the certificate of {identity} expires in {left}"),
                CAUSE,
                next,
            )),
            () => None,
        }
    }
}

/// So many days, without their sign, in words.
pub fn span(days: f64) -> String {
    let hours = days.abs() * 24.0;
    if hours < 48.0 { format!("{hours:.0} h") } else { format!("{:.0} days", hours / 24.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_what_is_left_of_its_life() {
        for (days_left, days, kind) in [
            (60.0, 90.0, None),
            (7.1, 90.0, None),
            (6.9, 90.0, Some("certificate_expiring")),
            (0.5, 1.0, None),
            (0.3, 1.0, Some("certificate_expiring")),
            (0.0, 1.0, Some("certificate_expired")),
            (-3.0, 90.0, Some("certificate_expired")),
        ] {
            let judged = Certificate { days_left, days }.judge("spiffe://us/eastway/gateway/gateway-1");
            assert_eq!(judged.as_ref().map(|problem| problem.kind), kind, "{days_left} of {days}");
            assert!(judged.is_none_or(|problem| problem.next.contains("eastway ca issue")));
        }
    }

    #[test]
    fn the_worst_problem_comes_first() {
        let problem =
            |severity| Problem { severity, kind: "a", what: String::new(), cause: String::new(), next: String::new() };
        let mut problems = [Severity::Warning, Severity::Error].map(problem);
        problems.sort();
        assert_eq!(problems.map(|problem| problem.severity), [Severity::Error, Severity::Warning]);
    }

    #[test]
    fn short_spans_are_told_in_hours() {
        assert_eq!([0.5, 1.9, 3.0, -30.4].map(span), ["12 h", "46 h", "3 days", "30 days"]);
    }
}
