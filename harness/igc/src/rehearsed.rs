//! Place `rehearsal`: the embedded stand-in, where every check has a world of its own and no gateway is tested.

use async_trait::async_trait;
use cluster::place::{Audience, Ending, Held, Place, PlaceError, Up};
use cluster::{environment::GatewayEnvironment, run::PlannedRun};
use rehearsal::{dialects, hops::Hops};
use tokio_util::sync::CancellationToken;
use verdict::plan::{self, GatewayPlan};

use crate::{failure::Failure, standing};

pub struct Rehearsal;

#[async_trait]
impl Place for Rehearsal {
    fn name(&self) -> plan::PlaceName {
        plan::PlaceName::Rehearsal
    }

    fn holds_all(&self) -> bool {
        true
    }

    fn lacks(&self, gateway: &str) -> Option<String> {
        dialects::of(gateway).is_none().then(|| format!("no rehearsal of {gateway}"))
    }

    async fn look(&self, _: &CancellationToken) -> Result<String, PlaceError> {
        Ok("no gateway is tested".to_owned())
    }

    /// For checks nothing has to stand: each starts a world of its own. For people there is one, in this process.
    async fn up(&self, up: Up<'_>, _: &CancellationToken) -> Result<Held, PlaceError> {
        let Up { run, gateway, audience, .. } = up;
        if audience == Audience::People {
            let world = standing::stand(run, gateway).await?;
            return Ok(Some(Box::new(world) as Box<_>));
        }
        let mut environment = GatewayEnvironment::rehearsed(&run.manifests, &gateway.versions)?;
        environment.notes.extend(Hops::of_the_environment().map_err(Failure::usage)?.note());
        run.note(&gateway.name, |current| *current = environment)?;
        Ok(None)
    }

    async fn down(&self, _: &PlannedRun, _: &GatewayPlan, _: Ending) -> Result<String, PlaceError> {
        Ok("the rehearsal is over".to_owned())
    }
}
