//! The table of what becomes of outbound requests: a script of what happens to each attempt, and what is to come of it.

use std::time::Duration;

use eastway_core::head::{Edit, Fields};
use eastway_resilience::Fault;

use super::*;
use crate::answer::AnswerEnd;
use crate::filter::{Fault as InjectedFault, FaultAbort, FaultDelay, Filter, HeaderEdits};
use crate::request_match::RequestMatch;
use crate::route::RouteTable;
use crate::testing::{World, head};

mod cases;
mod filters;
mod heads;

/// What happens to one attempt.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// An answer with this status, which passes to its end.
    Answers(u16),
    /// The same, as gRPC: only a head, with this `grpc-status`.
    Grpc(u8),
    /// An answer with this status and `Retry-After` in seconds.
    AnswersLater(u16, u64),
    /// An answer that breaks off for this reason.
    Breaks(u16, Reason),
    /// An answer that its reader lets go of.
    LetGo(u16),
    /// An answer with trailers: this `grpc-status`.
    Trailers(u8),
    /// A small answer that breaks off while it is held.
    BreaksHeld(Reason),
    /// A node on the way refuses.
    Refused(Reason),
    /// No connection.
    Fails(AttemptError),
    /// Nothing comes until the time is over.
    TimesOut,
    /// The caller goes away.
    Cancelled,
}

use Happens::*;

/// A request, what happens to its attempts, and what is to come of it.
struct Case {
    name: &'static str,
    endpoints: &'static str,
    method: &'static str,
    fields: &'static [(&'static str, &'static [u8])],
    body: BodyState,
    script: &'static [Happens],
    /// The last word, then the lines of the record.
    expected: &'static [&'static str],
}

const GET: Case = Case {
    name: "",
    endpoints: "aab",
    method: "GET",
    fields: &[],
    body: BodyState::NONE,
    script: &[Answers(200)],
    expected: &[],
};
const POST: Case = Case { method: "POST", ..GET };

impl Case {
    /// Plays it, and returns what came of it: the answer, then the record.
    fn play(&self) -> Vec<String> {
        let mut world = World::new(self.endpoints, TrafficPolicy::default());
        let answer = play(&mut world, &head(self.method, "/", &self.fields), &self.body, self.script);
        assert_eq!(
            std::rc::Rc::strong_count(&world.recorder.under_way),
            1,
            "{}: something is counted still",
            self.name
        );
        let entry = &world.entry;
        let free = entry.request_permit().is_some() && entry.stream_permit().is_some();
        assert!(free, "{}: a permit is held still", self.name);
        std::iter::once(answer).chain(world.recorder.take()).collect()
    }
}

/// Plays a request to its end.
fn play(world: &mut World, head: &RequestHead<'_>, body: &BodyState, script: &[Happens]) -> String {
    let (options, recorder) = (Arc::clone(&world.options), world.recorder.clone());
    let mut request = Outbound::begin(&recorder, &options, head, world.now, &mut world.rng);
    let mut script = script.iter();
    for _ in 0..100 {
        match request.step(world.now, &mut world.rng) {
            Step::Resolve(service) => {
                let known = service == *world.entry.service().name();
                let found = if known { Ok(Arc::clone(&world.entry)) } else { Err(Reason::UnknownService) };
                request.resolved(found, head, world.now, &mut world.rng);
            }
            Step::Wait(wait) => world.now = world.now + wait,
            Step::Refuse(refusal) => {
                let wait = refusal.retry_after.map(|wait| format!(" after {wait:?}")).unwrap_or_default();
                return format!("refused: {} {}{wait}", refusal.status, refusal.reason);
            }
            Step::FallBack => {
                let kept = ResponseHead { status: 503, fields: &() };
                let (_, mut answer) = request.fall_back(&kept).expect("there is an answer to fall back on");
                answer.end(AnswerEnd::Complete, world.now);
                return "fell back".to_owned();
            }
            Step::Attempt(mut pick) => {
                bind(world, &mut pick);
                world.now = world.now + Duration::from_millis(5);
                let Some(happens) = script.next().copied() else {
                    return "an attempt more than the script has".to_owned();
                };
                if let Some(ended) = attempt(world, &mut request, pick, body, happens) {
                    return ended;
                }
            }
        }
    }
    panic!("it does not end");
}

/// A session leads to some endpoint of a remote locality.
fn bind(world: &World, pick: &mut Pick) {
    if pick.endpoint().is_none() {
        let endpoint = world.entry.service().session(&pick.locality, &EndpointId::new("remote"));
        assert!(pick.bind(endpoint));
    }
}

/// What one attempt comes to; `None` if the request goes on.
fn attempt(
    world: &mut World,
    request: &mut Outbound<crate::testing::Lines>,
    pick: Pick,
    body: &BodyState,
    happens: Happens,
) -> Option<String> {
    let (now, rng) = (world.now, &mut world.rng);
    if request.context.stream {
        return match happens {
            Fails(error) => {
                request.failed(&pick, error, body, now, rng);
                None
            }
            Cancelled => Some("cancelled".to_owned()),
            _ => {
                let mut stream = request.opened(pick, now).expect("it was admitted");
                stream.streamed(10, 20);
                stream.end(AnswerEnd::Complete, now);
                Some("opened".to_owned())
            }
        };
    }
    let code = |code: u8| code.to_string().into_bytes();
    let (status, fields, end) = match happens {
        Answers(status) => (status, vec![], AnswerEnd::Complete),
        Grpc(status) => (200, vec![("grpc-status", code(status))], AnswerEnd::Complete),
        AnswersLater(status, wait) => {
            (status, vec![("retry-after", wait.to_string().into_bytes())], AnswerEnd::Complete)
        }
        Breaks(status, reason) => (status, vec![], AnswerEnd::Failed(reason)),
        LetGo(status) => (status, vec![], AnswerEnd::Dropped),
        Trailers(_) => (200, vec![], AnswerEnd::Complete),
        Refused(reason) => {
            let status = reason.proxy_status("eastway-gw-x").into_bytes();
            (reason.status(), vec![("proxy-status", status)], AnswerEnd::Complete)
        }
        BreaksHeld(reason) => {
            let judged = request.judge(&ResponseHead { status: 200, fields: &() }, Some(100), now).expect("an answer");
            assert!(judged.hold.is_some(), "a small answer to a request that may be repeated is held");
            let error = AttemptError { progress: eastway_resilience::Progress::Sent, ..AttemptError::said(reason) };
            request.failed(&pick, error, body, now, rng);
            return None;
        }
        Fails(error) => {
            request.failed(&pick, error, body, now, rng);
            return None;
        }
        TimesOut => {
            let mut later = now;
            let error = loop {
                match request.patience(body, later) {
                    Ok(wait) => later = later + wait,
                    Err(error) => break error,
                }
            };
            world.now = later;
            request.failed(&pick, error, body, later, rng);
            return None;
        }
        Cancelled => return Some("cancelled".to_owned()),
    };
    let borrowed: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_slice())).collect();
    let head = ResponseHead { status, fields: &borrowed.as_slice() };
    let judged = match request.judge(&head, None, now) {
        Ok(judged) => judged,
        Err(error) => {
            request.failed(&pick, error, body, now, rng);
            return None;
        }
    };
    let (_, mut answer) = request.answered(pick, &judged, body, now, rng)?;
    answer.data(7);
    if let Trailers(status) = happens {
        answer.trailers(&[("grpc-status", code(status).as_slice())].as_slice());
    }
    answer.end(end, now);
    Some(format!("passed: {status}"))
}
