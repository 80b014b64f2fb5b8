//! The places that there are, by what the command line and files call them.

use cluster::place::{Place, PlaceError};
use cluster::{place::context::ContextPlace, place::kind::KindPlace, programs::child::Programs};
use tokio_util::sync::CancellationToken;
use verdict::front;
use verdict::plan::{self, RunInfo};

use crate::{failure::Failure, options::On, rehearsed::Rehearsal};

fn named(place: plan::PlaceName, context: Option<&str>) -> Result<Box<dyn Place>, Failure> {
    let programs = Programs::from_env();
    Ok(match place {
        plan::PlaceName::Rehearsal => Box::new(Rehearsal),
        plan::PlaceName::Kind => Box::new(KindPlace::new(programs)),
        plan::PlaceName::Context => Box::new(ContextPlace::new(programs, context)),
        plan::PlaceName::Container => {
            let there = "the places that exist are rehearsal, kind and context";
            return Err(Failure::Usage(format!("--on container is not built yet; {there}")));
        }
    })
}

pub fn of(run: &RunInfo) -> Result<Box<dyn Place>, Failure> {
    named(run.place, run.context.as_deref())
}

/// The place that a run is asked to be in, and why it is that one: where none is named, kind if this machine has it, else
/// the rehearsal.
pub async fn choose(
    on: On,
    context: Option<&str>,
    cancel: &CancellationToken,
) -> Result<(Box<dyn Place>, String), Failure> {
    let asked = match on {
        On::Auto => {
            let (kind, rehearsal) = (named(plan::PlaceName::Kind, None)?, named(plan::PlaceName::Rehearsal, None)?);
            return Ok(match kind.look(cancel).await {
                Ok(found) => (kind, found),
                Err(why) => {
                    let (why, found) = (why.to_string(), rehearsal.look(cancel).await?);
                    let why = why.lines().next().unwrap_or_default();
                    (rehearsal, format!("{found}, because {why}; `{}` says what to install", front::command("doctor")))
                }
            });
        }
        On::Rehearsal => plan::PlaceName::Rehearsal,
        On::Container => plan::PlaceName::Container,
        On::Kind => plan::PlaceName::Kind,
        On::Context => plan::PlaceName::Context,
    };
    let place = named(asked, context)?;
    match place.look(cancel).await {
        Ok(found) => Ok((place, format!("asked for; {found}"))),
        Err(PlaceError::Environment(why)) => {
            let doctor = front::command("doctor");
            Err(Failure::Environment(format!("--on {}: {why}\n`{doctor}` lists what is missing", asked.word())))
        }
        Err(usage) => Err(usage.into()),
    }
}

/// The places that are this machine: no other cluster is touched without its name.
pub fn of_this_machine() -> [Box<dyn Place>; 2] {
    [Box::new(Rehearsal), Box::new(KindPlace::new(Programs::from_env()))]
}

pub fn of_context(context: Option<&str>) -> impl Place {
    ContextPlace::new(Programs::from_env(), context)
}
