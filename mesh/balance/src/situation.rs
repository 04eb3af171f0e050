//! The facts that shares follow from, at one moment, and what would become of them: `explain` offline, and `what-if`.
//!
//! A [`Situation`] is made from a scenario file or from a running node's state, and divided by the function that makes a
//! node's plan. It knows no time: ramps, damping and the slow movement of targets are left out, so that it shows where
//! things settle.

use std::fmt;
use std::str::FromStr;

use eastway_core::policy::Mode;
use serde::{Serialize, Serializer};

use crate::allocation::{Allocation, Localities, LocalityStats};
use crate::envoy::Hosts;
use crate::shares::{LocalityInput, Options, S, priority_utilisation, utilisation_factor};

/// Localities in priorities, and the numbers that divide traffic among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Situation {
    /// Which formulas.
    pub mode: Mode,
    /// Their parameters.
    pub options: Options,
    /// The localities of each priority, in order of preference.
    pub priorities: Vec<Vec<SituationLocality>>,
}

/// One locality of a situation.
#[derive(Clone, Debug, PartialEq)]
pub struct SituationLocality {
    /// `CLUSTER/ZONE`, or what a scenario calls it.
    pub name: String,
    /// Its region, where known.
    pub region: Option<String>,
    /// What it has; nothing holds it back.
    pub(crate) counted: LocalityStats,
}

/// A part of all traffic, in hundredths of a percent. It is written as a number in percent: whole where it is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u32);

/// How a situation divides traffic. Shares are in percent of all of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Division {
    /// What all priorities together can take.
    pub normalized_total_availability: Percent,
    /// In order of preference.
    pub priorities: Vec<PriorityDivision>,
    /// Where the rest lacks capacity. Absent unless something was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// The part of one priority.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriorityDivision {
    /// By its healthy hosts.
    pub healthy_load: Percent,
    /// By its degraded hosts.
    pub degraded_load: Percent,
    /// Marks are ignored: soft ones, or in the Envoy mode all.
    pub panic: bool,
    /// The parts of its localities.
    pub localities: Vec<LocalityDivision>,
}

/// The part of one locality.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LocalityDivision {
    /// Its name.
    pub name: String,
    /// What it gets.
    pub share: Percent,
    /// What that makes of its capacity: `Some(None)`, written `null`, if that is unknown. Absent unless something was
    /// asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<Option<f64>>,
}

/// What is lost, for the sake of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A locality by its name, which for a running mesh is a zone: `CLUSTER/ZONE`.
    Locality(String),
    /// Every zone of a cluster.
    Cluster(String),
    /// Every zone of a region.
    Region(String),
}

/// A question about a loss that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossError {
    /// The text is none.
    #[error("`{0}` says not what is lost: write locality=NAME, zone=CLUSTER/ZONE, cluster=NAME or region=NAME")]
    Malformed(String),
    /// The traffic is no number.
    #[error("`{0}` is no load: write a number such as 1.3, for 30 % more traffic than now")]
    Load(String),
    /// Nothing here is called so.
    #[error("nothing is lost by {loss}: there are {known}")]
    Unknown {
        /// What was asked about.
        loss: Loss,
        /// What there is.
        known: String,
    },
    /// As unknown, where traffic may go to some regions only.
    #[error(
        "nothing is lost by {loss}: the residency fence keeps traffic inside of {regions}, where there are {known}"
    )]
    Outside {
        /// What was asked about.
        loss: Loss,
        /// What there is.
        known: String,
        /// The regions inside.
        regions: String,
    },
    /// It is a scenario that was asked about, whose localities have none.
    #[error(
        "nothing is lost by region={0}: a scenario says of no locality in which region it is; write locality=NAME or cluster=NAME"
    )]
    NoRegions(String),
}

impl Situation {
    /// How traffic is divided.
    pub fn divide(&self) -> Division {
        let allocation = self.decide();
        let told = allocation.told(self.mode);
        let mut localities = self.priorities.iter().flatten().zip(told).map(|(locality, told)| LocalityDivision {
            name: locality.name.clone(),
            share: Percent(told.share),
            utilisation: None,
        });
        let priorities = allocation.target.priorities.iter().map(|priority| PriorityDivision {
            healthy_load: Percent(priority.healthy_load),
            degraded_load: Percent(priority.degraded_load),
            panic: priority.panic,
            localities: localities.by_ref().take(priority.localities.len()).collect(),
        });
        Division {
            priorities: priorities.collect(),
            normalized_total_availability: Percent(allocation.target.normalized_total_availability),
            warnings: None,
        }
    }

    fn decide(&self) -> Allocation {
        let localities: Vec<&LocalityStats> =
            self.priorities.iter().flatten().map(|locality| &locality.counted).collect();
        let (mut ranges, mut factors, mut start) = (Vec::new(), Vec::new(), 0);
        for priority in &self.priorities {
            let inputs: Vec<LocalityInput> = priority.iter().map(|locality| locality.counted.input).collect();
            factors.push(utilisation_factor(priority_utilisation(&inputs), self.options.target_utilisation));
            ranges.push(start..start + priority.len());
            start += priority.len();
        }
        Localities { localities: &localities, priorities: &ranges, factors: &factors }.divide(self.mode, &self.options)
    }

    /// How traffic would be divided without what is lost, at `load` times the present traffic: with each locality's
    /// utilisation, and a warning where the rest lacks capacity.
    ///
    /// # Errors
    /// [`LossError::Unknown`] if a loss names nothing that is there, [`LossError::NoRegions`] if nobody knows what is where.
    pub fn what_if(&self, losses: &[Loss], load: f64) -> Result<Division, LossError> {
        let mut after = self.clone();
        for loss in losses {
            after.lose(loss)?;
        }
        let mut division = after.divide();
        let demand = self.demand().map(|demand| demand * load);
        let localities = after.priorities.iter().flatten();
        for (locality, divided) in
            localities.zip(division.priorities.iter_mut().flat_map(|priority| priority.localities.iter_mut()))
        {
            divided.utilisation = Some(locality.utilisation_at(divided.share, demand));
        }
        division.warnings = Some(after.warnings(&division, self, !losses.is_empty() || load != 1.0));
        Ok(division)
    }

    /// Requests at once, all localities together; `None` if a locality that serves does not say.
    fn demand(&self) -> Option<f64> {
        self.priorities.iter().flatten().map(SituationLocality::needed).sum()
    }

    /// The localities that have a part of the demand.
    pub(crate) fn loaded(&self) -> Vec<String> {
        let busy = |locality: &&SituationLocality| locality.needed().is_some_and(|needed| needed > 0.0);
        let localities = self.priorities.iter().flatten().filter(|_| self.demand().is_some());
        localities.filter(busy).map(|locality| locality.name.clone()).collect()
    }

    /// Where what is left lacks capacity: by utilisation where it is known, else by availability. `before` is what there
    /// was, and `differs` says that there is more to bear than then, or less to bear it with.
    fn warnings(&self, division: &Division, before: &Self, differs: bool) -> Vec<String> {
        let divided = division.priorities.iter().flat_map(|priority| &priority.localities);
        let used = || {
            self.priorities.iter().flatten().zip(divided.clone()).filter(|(_, locality)| locality.share > Percent(0))
        };
        // Not by the availability: in a panic soft hosts serve, which are no part of it.
        if !used().any(|(locality, _)| locality.serves()) {
            return vec!["nothing is left that can serve: every request would fail".to_owned()];
        }
        let mut warnings = Vec::new();
        let (mut untold, mut nothing) = (Vec::new(), Vec::new());
        for (locality, LocalityDivision { name, utilisation, .. }) in used() {
            match utilisation.flatten() {
                Some(used) if used > 1.0 => {
                    let percent = used * 100.0;
                    warnings.push(format!(
                        "{name} lacks capacity: its share needs {percent:.0} % of what it can serve at once"
                    ));
                }
                Some(_) => {}
                None if locality.available() == 0.0 => nothing.push(name.as_str()),
                None => untold.push(name.as_str()),
            }
        }
        let available = division.normalized_total_availability;
        let why = match (untold.is_empty(), nothing.is_empty()) {
            (false, _) => Some("utilisation is unknown".to_owned()),
            (true, false) => Some(format!("nothing of {} is available", nothing.join(", "))),
            (true, true) => None,
        };
        if let Some(why) = why.filter(|_| available < Percent(S)) {
            warnings.push(format!(
                "the rest can be relied on for {available} % of the traffic only, by its availability: {why}"
            ));
        }
        if !untold.is_empty() && differs {
            let silent = before.priorities.iter().flatten().filter(|locality| locality.needed().is_none());
            let silent: Vec<&str> = silent.map(|locality| locality.name.as_str()).collect();
            let why = match silent.is_empty() {
                true => "its capacity is 0".to_owned(),
                false => format!("utilisation of {} is unknown", silent.join(", ")),
            };
            warnings.push(format!("cannot tell whether {} can take it: {why}", untold.join(", ")));
        }
        warnings
    }

    fn lose(&mut self, loss: &Loss) -> Result<(), LossError> {
        if let Loss::Region(region) = loss
            && self.priorities.iter().flatten().any(|locality| locality.region.is_none())
        {
            return Err(LossError::NoRegions(region.clone()));
        }
        if !self.priorities.iter().flatten().any(|locality| loss.hits(locality)) {
            let names: Vec<&str> = self.priorities.iter().flatten().map(|locality| locality.name.as_str()).collect();
            let known = if names.is_empty() { "no localities".to_owned() } else { names.join(", ") };
            return Err(LossError::Unknown { loss: loss.clone(), known });
        }
        self.priorities.iter_mut().flatten().filter(|locality| loss.hits(locality)).for_each(SituationLocality::lose);
        Ok(())
    }
}

impl SituationLocality {
    /// Its hosts are down: they still count, and serve nothing.
    fn lose(&mut self) {
        let LocalityStats { input, hosts, .. } = self.counted;
        self.counted = LocalityStats {
            input: LocalityInput { healthy: 0.0, degraded: 0.0, soft: 0.0, utilisation: None, ..input },
            hosts: Hosts { healthy: 0, degraded: 0, ..hosts },
            ..LocalityStats::default()
        };
    }

    /// Whether anything in it can serve, in a panic if need be.
    fn serves(&self) -> bool {
        self.counted.input.healthy + self.counted.input.degraded + self.counted.input.soft > 0.0
    }

    /// The part of its capacity that is there.
    fn available(&self) -> f64 {
        let LocalityInput { total, healthy, degraded, .. } = self.counted.input;
        if total > 0.0 { (healthy + degraded) / total } else { 0.0 }
    }

    /// Requests at once that it has; `None` if it serves and does not say.
    fn needed(&self) -> Option<f64> {
        match self.counted.input.utilisation {
            Some(utilisation) => Some(self.counted.input.capacity * utilisation),
            // Where nothing serves, nothing is in use.
            None => (self.available() == 0.0).then_some(0.0),
        }
    }

    /// Its utilisation with `share` of a `demand` for requests at once.
    fn utilisation_at(&self, share: Percent, demand: Option<f64>) -> Option<f64> {
        let capacity = self.counted.input.capacity * self.available();
        let demand = demand.filter(|_| capacity > 0.0)?;
        Some(round(share.fraction() * demand / capacity))
    }
}

/// Four decimals are more than anybody measures, and fewer than noise.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

impl Percent {
    /// As a part of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(S)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.0 / 100, self.0 % 100) {
            (whole, 0) => whole.to_string(),
            (whole, tenths) if tenths % 10 == 0 => format!("{whole}.{}", tenths / 10),
            (whole, hundredths) => format!("{whole}.{hundredths:02}"),
        };
        f.pad(&text)
    }
}

impl Serialize for Percent {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        match self.0 % 100 {
            0 => serializer.serialize_u32(self.0 / 100),
            _ => serializer.serialize_f64(f64::from(self.0) / 100.0),
        }
    }
}

/// A question about a loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// What is lost.
    pub losses: Vec<Loss>,
    /// Traffic, relative to now. Default 1.
    pub load: f64,
}

impl Question {
    /// The question that the parameters `lose` (any number of them) and `load` ask; others are passed over.
    ///
    /// # Errors
    /// A loss or a load that is none.
    pub fn from_parameters<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, LossError> {
        let mut question = Self { losses: Vec::new(), load: 1.0 };
        for (name, value) in parameters {
            match name {
                "lose" => question.losses.push(value.parse()?),
                "load" => {
                    let load = value.parse().ok().filter(|load: &f64| load.is_finite() && *load >= 0.0);
                    question.load = load.ok_or_else(|| LossError::Load(value.to_owned()))?;
                }
                _ => {}
            }
        }
        Ok(question)
    }
}

impl Loss {
    fn hits(&self, locality: &SituationLocality) -> bool {
        match self {
            Self::Locality(name) => locality.name == *name,
            Self::Cluster(name) => locality.name.split_once('/').is_some_and(|(cluster, _)| cluster == name),
            Self::Region(name) => locality.region.as_ref() == Some(name),
        }
    }
}

impl FromStr for Loss {
    type Err = LossError;

    fn from_str(text: &str) -> Result<Self, LossError> {
        let malformed = || LossError::Malformed(text.to_owned());
        let (what, name) = text.split_once('=').filter(|(_, name)| !name.is_empty()).ok_or_else(malformed)?;
        match what {
            "locality" | "zone" => Ok(Self::Locality(name.to_owned())),
            "lane" => Ok(Self::Locality(name.to_owned())), // a former name
            "cluster" => Ok(Self::Cluster(name.to_owned())),
            "region" => Ok(Self::Region(name.to_owned())),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locality(name) => write!(f, "locality={name}"),
            Self::Cluster(name) => write!(f, "cluster={name}"),
            Self::Region(name) => write!(f, "region={name}"),
        }
    }
}
