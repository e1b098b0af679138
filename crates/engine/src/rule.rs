//! The learning rules: rows of one table (docs/rules.md).
//!
//! A rule says which feedback signal meets which local factor: the feedback path's weights, the network at
//! which the path's slopes (σ′ and norm) are taken, and the network that the local factors (normᵀ and the
//! layer's input) come from. Rules know nothing of optimisers, parameterisations, layers or data.

use std::fmt;

/// One of the two networks that a rule may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The network being trained.
    Current,
    /// The network at initialisation, run on the same minibatch with its own batch statistics.
    Initial,
}

/// The weights of the feedback path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackWeights {
    /// The forward weights as they are now.
    Current,
    /// The forward weights at initialisation, W⁽⁰⁾.
    Initial,
    /// Fixed random weights, drawn like the forward weights.
    Random,
    /// The sign of the forward weights as they are now, at the scale of the initial weights.
    Sign,
}

/// How the error reaches a hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// Layer by layer through `weights`; σ′ and norm of the path taken at `slopes`.
    Chain {
        /// The path's weights.
        weights: FeedbackWeights,
        /// The network whose σ′ and norm the path uses.
        slopes: Point,
    },
    /// From the outputs to every layer through a fixed random matrix of its own: `ψ = σ′(z) ⊙ B e`.
    Direct,
    /// Not at all: hidden layers stay as they are.
    Off,
}

/// A learning rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name in configs and tables.
    pub name: &'static str,
    /// How the error reaches hidden layers.
    pub feedback: Feedback,
    /// The network whose normᵀ and layer inputs make the update.
    pub local: Point,
    /// Where the rule comes from.
    pub source: &'static str,
}

const fn chain(weights: FeedbackWeights, slopes: Point) -> Feedback {
    Feedback::Chain { weights, slopes }
}

/// Every rule, in the order of the tables.
pub const RULES: [Rule; 8] = [
    Rule {
        name: "normal",
        feedback: chain(FeedbackWeights::Current, Point::Current),
        local: Point::Current,
        source: "gradient descent by backpropagation",
    },
    Rule {
        name: "last-layer",
        feedback: Feedback::Off,
        local: Point::Current,
        source: "only the head learns",
    },
    Rule {
        name: "fa",
        feedback: chain(FeedbackWeights::Random, Point::Current),
        local: Point::Current,
        source: "feedback alignment, Lillicrap et al. 2016",
    },
    Rule {
        name: "dfa",
        feedback: Feedback::Direct,
        local: Point::Current,
        source: "direct feedback alignment, Nøkland 2016",
    },
    Rule {
        name: "sign-symmetry",
        feedback: chain(FeedbackWeights::Sign, Point::Current),
        local: Point::Current,
        source: "sign-symmetry, Liao, Leibo & Poggio 2016",
    },
    Rule {
        name: "align-ada",
        feedback: chain(FeedbackWeights::Initial, Point::Initial),
        local: Point::Current,
        source: "Boopathy & Fiete 2022, Alg. 2, Eq. 16",
    },
    Rule {
        name: "align-zero",
        feedback: chain(FeedbackWeights::Initial, Point::Initial),
        local: Point::Initial,
        source: "Boopathy & Fiete 2022, Alg. 1, Eq. 15",
    },
    Rule {
        name: "align-prop",
        feedback: chain(FeedbackWeights::Initial, Point::Current),
        local: Point::Current,
        source: "Boopathy & Fiete 2022, App. G",
    },
];

impl Rule {
    /// The rule of that name; `readout-only`, the recurrent network's name for it, is `last-layer`.
    pub fn named(name: &str) -> Option<Self> {
        let name = if name == "readout-only" {
            "last-layer"
        } else {
            name
        };
        RULES.into_iter().find(|rule| rule.name == name)
    }

    /// Whether the initial network must run on every minibatch.
    pub fn needs_initial_pass(&self) -> bool {
        let path = matches!(
            self.feedback,
            Feedback::Chain {
                slopes: Point::Initial,
                ..
            }
        );
        path || self.local == Point::Initial
    }

    /// Whether an update looks at the hidden layers' pass of the network being trained.
    pub fn needs_current_pass(&self) -> bool {
        let local = self.local == Point::Current;
        match self.feedback {
            Feedback::Off => false,
            Feedback::Direct => local,
            Feedback::Chain { slopes, .. } => local || slopes == Point::Current,
        }
    }

    /// Whether the initial weights must be kept.
    pub fn needs_initial_weights(&self) -> bool {
        self.feedback_weights() == Some(FeedbackWeights::Initial) || self.needs_initial_pass()
    }

    /// The weights of the feedback path, if there is one.
    pub fn feedback_weights(&self) -> Option<FeedbackWeights> {
        match self.feedback {
            Feedback::Chain { weights, .. } => Some(weights),
            Feedback::Direct | Feedback::Off => None,
        }
    }

    /// How many passes over the network one update takes, beside the initial network's own: the forward pass, the
    /// feedback and the weight gradient, which cost about the same.
    pub fn passes(&self) -> usize {
        match self.feedback {
            Feedback::Off => 1,
            Feedback::Direct => 2,
            Feedback::Chain { .. } => 3,
        }
    }

    /// Whether hidden layers learn.
    pub fn trains_hidden_layers(&self) -> bool {
        self.feedback != Feedback::Off
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}
