//! Changing what is applied: judged as a whole, written as a whole, and in effect when it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use eastway_admission::{Declared, Text, fit, judge};
use eastway_core::resource::Kind;
use eastway_documents::{Problem, Problems, Severity};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::set::{Files, ResourceSet};
use super::stored::{ChangedDocument, Generation, Stored, differences};
use crate::document::{DocumentId, Documents};
use crate::store::StoreError;

/// How often a change is tried while other gateways change the set, too.
const ATTEMPTS: u32 = 8;

/// The owner of a resource that was applied.
pub const APPLIED: &str = "applied";
/// The owner of a `Peer` that joined by a token.
pub const TOKEN: &str = "token";

/// What an operator wants.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "change", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Change {
    /// Resources to be as these texts say.
    Apply {
        /// The texts, with the files that they come from.
        texts: Vec<NamedText>,
        /// What is in the files that texts name, by their paths.
        #[serde(default)]
        beside: BTreeMap<String, String>,
        /// What was applied and is not among them goes.
        #[serde(default)]
        prune: bool,
    },
    /// Applied resources to go.
    Delete {
        /// Which.
        resources: Vec<DocumentId>,
    },
    /// The set to be as it was in a generation.
    Rollback {
        /// Its number; the one before the latest if not given.
        generation: Option<u64>,
    },
}

/// A text and where it comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NamedText {
    /// The file that it comes from, or stands for.
    pub file: String,
    /// What it says.
    pub text: String,
}

/// What a change did, or would do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The generation that counts now.
    pub generation: u64,
    /// Whether anything was written.
    pub applied: bool,
    /// What differs.
    pub changes: Vec<Difference>,
    /// What will hardly do what is meant.
    pub warnings: Problems,
}

/// A resource that a change concerns.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Which, and what becomes of it.
    #[serde(flatten)]
    pub change: ChangedDocument,
    /// As it was applied before.
    pub before: Option<Value>,
    /// As it is applied now.
    pub after: Option<Value>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    /// The set would not be sound.
    #[error("{0}")]
    Problems(Problems),
    /// What is named is not there.
    #[error("{0}")]
    NotThere(String),
    /// The store failed.
    #[error("the store cannot be written")]
    Store(#[from] StoreError),
}

/// A resource that counts, and whose it is.
#[derive(Clone, Debug, Serialize)]
pub struct OwnedDocument {
    /// Which.
    #[serde(flatten)]
    pub id: DocumentId,
    /// The file and line of this gateway's that declares it, [`APPLIED`], or [`TOKEN`].
    pub owner: String,
    /// As it was declared.
    pub document: Value,
}

impl ResourceSet {
    /// Makes the change, or says what it would do. It acts here when this returns, and on the other gateways as soon as the
    /// store has told them.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub(crate) async fn change(&self, change: &Change, by: &str, dry_run: bool) -> Result<Outcome, NotApplied> {
        self.make(|stored| wanted(change, stored), by, dry_run).await
    }

    /// Takes a peer that joined by a token: what `peer` makes of the document that is applied for it so far.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub(crate) async fn join(
        &self,
        name: &str,
        peer: impl Fn(Option<&Value>) -> Value,
        by: &str,
        dry_run: bool,
    ) -> Result<Outcome, NotApplied> {
        self.make(|stored| joining(name, &peer, stored), by, dry_run).await
    }

    /// The file and line of this gateway's that declares the resource.
    pub(crate) fn file_of(&self, id: &DocumentId) -> Option<String> {
        self.known().0.declared.iter().find(|one| DocumentId::from(one.resource.id()) == *id).map(Declared::place)
    }

    async fn make(
        &self,
        wanted: impl Fn(&Stored) -> Result<Wanted, NotApplied>,
        by: &str,
        dry_run: bool,
    ) -> Result<Outcome, NotApplied> {
        let _one = self.writing.lock().await;
        for _ in 0..ATTEMPTS {
            let stored = Stored::read(&*self.store).await?;
            let before = stored.now();
            let Wanted { documents: after, asked, joined } = wanted(&stored)?;
            let warnings = self.admit(&before, &after, &asked)?;
            let mut outcome = Outcome {
                generation: stored.number(),
                applied: false,
                changes: differences(&before, &after).into_iter().map(|change| told(change, &before, &after)).collect(),
                warnings,
            };
            if dry_run || outcome.changes.is_empty() {
                return Ok(outcome);
            }
            let at = (self.hub.options.wall_clock)();
            let Some(number) = stored.replace(&*self.store, &after, &joined, (by, at, &self.hub.gateway)).await? else {
                continue;
            };
            tracing::info!(generation = number, by, resources = outcome.changes.len(), "resources were applied");
            (outcome.generation, outcome.applied) = (number, true);
            match Stored::read(&*self.store).await {
                Ok(stored) => self.use_newer(stored),
                Err(error) => {
                    tracing::warn!(generation = number, %error, "applied; it acts here when the store tells it")
                }
            }
            return Ok(outcome);
        }
        let reason = "other gateways change the applied resources all the time".to_owned();
        Err(StoreError::Unavailable { attempts: ATTEMPTS, reason }.into())
    }

    /// Judges what a set would be together with this gateway's files, and returns the warnings that concern what was `asked`
    /// for. What was wrong before, and is not asked about, is no reason to refuse.
    fn admit(&self, before: &Documents, after: &Documents, asked: &[Declared]) -> Result<Problems, NotApplied> {
        let (files, _) = self.known();
        let mut problems = self.judged(after, asked, &files);
        problems.extend(asked.iter().filter_map(|one| owned_elsewhere(one, &files)));
        let asked: BTreeSet<_> = asked.iter().map(|one| one.source.file().to_owned()).collect();
        if problems.has_errors() {
            let known: BTreeSet<Problem> = self.judged(before, &[], &files).into_iter().collect();
            let mut new = Problems::default();
            new.extend(problems.into_iter().filter(|one| asked.contains(&one.file) || !known.contains(one)));
            if new.has_errors() {
                return Err(NotApplied::Problems(new));
            }
            problems = new;
        }
        let mut warnings = Problems::default();
        warnings.extend(problems.into_iter().filter(|problem| asked.contains(&problem.file)));
        Ok(warnings)
    }

    /// Everything that is wrong with `documents` beside the files, those that were `asked` for with their own places.
    fn judged(&self, documents: &Documents, asked: &[Declared], files: &Files) -> Problems {
        let mut all = asked.to_vec();
        let mut known: BTreeSet<_> = asked.iter().map(|one| one.resource.id()).collect();
        let unasked = files.declared.iter().filter(|one| !known.contains(&one.resource.id())).cloned();
        all.extend(unasked.collect::<Vec<_>>());
        known.extend(files.declared.iter().map(|one| one.resource.id()));
        all.extend(documents.values().filter_map(Declared::stored).filter(|one| !known.contains(&one.resource.id())));
        let mut problems = fit(&all);
        problems.extend(judge(&all, &self.cluster, self.live().as_ref()));
        problems
    }

    /// The resources that count, with their owners, those of files first.
    pub(crate) fn owned(&self) -> Vec<OwnedDocument> {
        let (files, applied) = self.known();
        let mut all: Vec<OwnedDocument> = Vec::new();
        for one in &files.declared {
            let (id, document) = (one.resource.id().into(), one.document.clone());
            all.push(OwnedDocument { id, owner: one.place(), document });
        }
        let declared: BTreeSet<DocumentId> = all.iter().map(|one| one.id.clone()).collect();
        let documents = applied.now();
        let joined: BTreeSet<DocumentId> =
            applied.joined(&documents).iter().map(|name| DocumentId::peer(name)).collect();
        let owner = |id: &DocumentId| if joined.contains(id) { TOKEN } else { APPLIED };
        let applied = documents.into_iter().filter(|(id, _)| !declared.contains(id));
        all.extend(applied.map(|(id, document)| OwnedDocument { owner: owner(&id).to_owned(), id, document }));
        all
    }

    /// The generations that are kept, the latest last.
    pub(crate) fn generations(&self) -> Vec<Generation> {
        self.known().1.generations
    }
}

/// The set that a change leads to.
struct Wanted {
    documents: Documents,
    /// What of it is asked for.
    asked: Vec<Declared>,
    /// The peers among it that joined by a token.
    joined: BTreeSet<String>,
}

/// What is applied when a peer joins by a token.
fn joining(name: &str, peer: impl Fn(Option<&Value>) -> Value, stored: &Stored) -> Result<Wanted, NotApplied> {
    let (mut documents, id) = (stored.now(), DocumentId::peer(name));
    let document = peer(documents.get(&id));
    let text = NamedText { file: format!("the peer {name}, by its token"), text: document.to_string() };
    let asked = read(&[text], &BTreeMap::new()).map_err(NotApplied::Problems)?;
    let mut joined = stored.joined(&documents);
    let new = documents.get(&id) != asked.first().map(|one| &one.document);
    if new || joined.contains(name) {
        joined.insert(name.to_owned());
    }
    documents.extend(asked.iter().map(|one| (one.resource.id().into(), one.document.clone())));
    Ok(Wanted { documents, asked, joined })
}

fn wanted(change: &Change, stored: &Stored) -> Result<Wanted, NotApplied> {
    match change {
        Change::Apply { texts, beside, prune } => {
            let declared = read(texts, beside).map_err(NotApplied::Problems)?;
            let mut documents = stored.now();
            if *prune {
                // Who joined by a token came by no file that could be given here.
                let joined = stored.joined(&documents);
                documents.retain(|id, _| joined.contains(&id.name) && *id == DocumentId::peer(&id.name));
            }
            if *prune && declared.is_empty() {
                return Err(NotApplied::NotThere(
                    "there is no resource in what is given, so that to prune would delete all: use `delete --all`"
                        .to_owned(),
                ));
            }
            for one in &declared {
                documents.insert(one.resource.id().into(), one.document.clone());
            }
            Ok(Wanted { joined: stored.joined(&documents), documents, asked: declared })
        }
        Change::Delete { resources } => {
            let mut documents = stored.now();
            for id in resources {
                if documents.remove(id).is_none() {
                    return Err(NotApplied::NotThere(format!("{id} was not applied: see `eastway get`")));
                }
            }
            Ok(Wanted { joined: stored.joined(&documents), documents, asked: Vec::new() })
        }
        Change::Rollback { generation } => {
            let kept: Vec<u64> = stored.generations.iter().map(|generation| generation.number).collect();
            let number = generation.or_else(|| kept.iter().rev().nth(1).copied());
            let found = number.and_then(|number| stored.generation(number));
            let found = found.ok_or_else(|| {
                NotApplied::NotThere(match (number, &kept[..]) {
                    (_, []) => "nothing was applied yet".to_owned(),
                    (None, _) => "there is no generation before the first".to_owned(),
                    (Some(number), _) => format!("generation {number} is not kept: there are {kept:?}"),
                })
            })?;
            Ok(Wanted { documents: stored.documents(found), asked: Vec::new(), joined: found.joined.clone() })
        }
    }
}

fn read(texts: &[NamedText], beside: &BTreeMap<String, String>) -> Result<Vec<Declared>, Problems> {
    let texts: Vec<Text> =
        texts.iter().map(|text| Text { file: text.file.clone().into(), text: text.text.clone() }).collect();
    eastway_admission::read(&texts, &|source, path| {
        let path = source.resolve(path);
        beside.get(&*path.to_string_lossy()).cloned().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "it was not sent along: write the PEM itself, or use `eastway apply`",
            )
        })
    })
}

/// What a file of the gateway declares is changed there.
fn owned_elsewhere(one: &Declared, files: &Files) -> Option<Problem> {
    let id = one.resource.id();
    let owner = files.declared.iter().find(|file| file.resource.id() == id)?;
    let (source, path) = (&one.source, "metadata.name");
    let cause = format!("{id} belongs to {}, a file of this gateway's configuration", owner.place());
    let suggestion = Some("change it there, or remove it there and reload before it is applied".to_owned());
    let problem = Problem::new(source.file(), source.line(path), path, cause);
    Some(Problem { severity: Severity::Error, suggestion, ..problem })
}

fn told(change: ChangedDocument, before: &Documents, after: &Documents) -> Difference {
    let (before, after) = (before.get(&change.id).cloned(), after.get(&change.id).cloned());
    Difference { change, before, after }
}

impl DocumentId {
    /// The resource of this kind, name and namespace, the kind as people write it.
    ///
    /// # Errors
    /// There is no such kind: with those that there are.
    pub fn find(kind: &str, namespace: &str, name: &str) -> Result<Self, String> {
        let found = Kind::find(kind).ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("`{kind}` is no kind of resource: there are {}", known.join(", "))
        })?;
        let namespace = if found.is_namespaced() { namespace } else { "default" };
        Ok(Self { kind: found.as_str().to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
    }
}
