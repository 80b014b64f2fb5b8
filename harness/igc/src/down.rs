//! Taking down: evidence first, then nothing is left; and sweeping what runs that were killed have left.

use cluster::place::sweep::{self, Swept};
use cluster::place::{Ending, Place};
use cluster::run::PlannedRun;
use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::{folder::Event, plan::GatewayPlan, record::Verdict};

use crate::{failure::Failure, log::Log, options, places, plan::runs};

pub async fn down(
    place: &dyn Place,
    run: &PlannedRun,
    gateways: &[&GatewayPlan],
    ending: Ending,
    log: &Log,
) -> Result<(), Failure> {
    for &gateway in gateways {
        let records = run.folder.read_records()?;
        let failed = run.environment(&gateway.name).error.is_some()
            || records.records.iter().any(|r| r.key.gateway == gateway.name && r.verdict != Verdict::Pass);
        if failed && ending == Ending::Done {
            // What cannot be kept is no reason to leave a cluster behind.
            if let Err(failure) = place.evidence(run, gateway).await {
                log.say(format_args!("no evidence of the components: {failure}"));
            }
        }
        let done = place.down(run, gateway, ending).await?;
        log.say(&done);
        run.folder.append_event(&Event { gateway: Some(gateway.name.clone()), ..Event::now("down", done) })?;
    }
    Ok(())
}

/// Removes everything of every run on this machine, or of every run in a cluster of the user's.
pub async fn sweep(root: &Root, options: &options::Down, cancel: &CancellationToken) -> Result<u8, Failure> {
    if let Some(context) = options.context.as_deref() {
        return said(&places::of_context(Some(context)).sweep(cancel).await?);
    }
    let mut swept = sweep::processes(options.out.as_deref().unwrap_or(&runs(root))).await;
    for place in places::of_this_machine() {
        swept = swept.and(place.sweep(cancel).await?);
    }
    said(&swept)
}

fn said(swept: &Swept) -> Result<u8, Failure> {
    print!("{swept}");
    Ok(if swept.problems.is_empty() { 0 } else { 3 })
}
