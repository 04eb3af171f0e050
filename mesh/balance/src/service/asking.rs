//! Questions about what would be: the service's state as a [`Situation`].

use eastway_core::ZoneId;
use eastway_core::policy::Mode;
use serde::Serialize;

use super::Service;
use super::control::LocalityControl;
use super::explaining::{fence, is_outside};
use crate::allocation::LocalityStats;
use crate::situation::{Division, LossError, Question, Situation, SituationLocality};

/// The answer to a question about a running service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhatIf {
    /// `NAMESPACE/SERVICE`.
    pub service: String,
    /// The zone that calls.
    pub from: ZoneId,
    /// Which formulas divide traffic.
    pub mode: Mode,
    /// What is lost, as it was asked.
    pub lost: Vec<String>,
    /// How much traffic there is, relative to now.
    pub load: f64,
    /// The localities whose present load is added up and divided as if all of it came from `from`; none if that is unknown.
    pub loaded: Vec<String>,
    /// Where traffic would settle.
    #[serde(flatten)]
    pub division: Division,
}

impl Service {
    /// The facts that the shares follow from now, without what only passes: ramps, damping, targets on their way.
    pub fn situation(&self) -> Situation {
        let control = self.state.control.lock();
        let arranged = control.arranged_for(&self.view);
        let counted = arranged.count();
        let situated = |i: usize| arranged.locality(i).situated(&counted[i]);
        let policy = &control.rules.policy;
        // What the operator keeps traffic out of cannot be lost.
        let inside = |i: &usize| !is_outside(arranged.locality(*i), policy);
        let priorities =
            arranged.priorities().into_iter().map(|range| range.filter(inside).map(situated).collect::<Vec<_>>());
        let priorities = priorities.filter(|localities| !localities.is_empty()).collect();
        Situation { mode: policy.mode, options: policy.options(), priorities }
    }

    /// The answer to the question that such parameters ask (see [`Question::from_parameters`]).
    ///
    /// # Errors
    /// They ask none, or a loss names nothing that serves here.
    pub fn answer(&self, parameters: &[(String, String)]) -> Result<WhatIf, LossError> {
        let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.what_if(&Question::from_parameters(parameters)?)
    }

    /// Where traffic would settle without what is lost.
    ///
    /// # Errors
    /// [`LossError::Unknown`] if a loss names nothing that serves here, [`LossError::Outside`] if a residency fence may be
    /// why.
    pub fn what_if(&self, question: &Question) -> Result<WhatIf, LossError> {
        let Question { losses, load } = question;
        let situation = self.situation();
        Ok(WhatIf {
            service: self.state.name.to_string(),
            from: self.view.caller.zone.clone(),
            mode: situation.mode,
            lost: losses.iter().map(ToString::to_string).collect(),
            load: *load,
            loaded: situation.loaded(),
            division: situation.what_if(losses, *load).map_err(|error| self.explained(error))?,
        })
    }

    /// The same error, with the residency fence where there is one.
    fn explained(&self, error: LossError) -> LossError {
        match (error, fence(&self.policy())) {
            (LossError::Unknown { loss, known }, Some(regions)) => LossError::Outside { loss, known, regions },
            (error, _) => error,
        }
    }
}

impl LocalityControl {
    /// The locality as a situation has it.
    fn situated(&self, counted: &LocalityStats) -> SituationLocality {
        let region = Some(self.region.to_string());
        SituationLocality { name: self.zone.to_string(), region, counted: counted.clone() }
    }
}
