//! From a plan to a place where its gateways stand, with everything that their checks need.

use cluster::place::{Audience, Place, Up, doctor};
use cluster::run::PlannedRun;
use tokio_util::sync::CancellationToken;
use verdict::{folder::Event, front, plan::GatewayPlan};

use crate::{failure::Failure, log::Log, options, places};

/// Stands gateways of a planned run up; what fails is written down for the report. For people it is said how they are
/// reached, and what stands in this process stands until it is cancelled.
pub async fn up(
    place: &dyn Place,
    run: &PlannedRun,
    gateways: &[&GatewayPlan],
    audience: Audience,
    log: &Log,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let mut held = Vec::new();
    for &gateway in gateways {
        let event = |text: String| Event { gateway: Some(gateway.name.clone()), ..Event::now("up", text) };
        run.folder.append_event(&event("standing up".into()))?;
        let standing = async {
            let up = Up { run, gateway, audience, progress: log.progress() };
            Ok::<_, Failure>(place.up(up, cancel).await?)
        };
        let standing = standing.await;
        if let Err(failure) = &standing {
            run.note(&gateway.name, |environment| environment.error = Some(failure.to_string()))?;
        }
        run.folder.append_event(&event(standing.as_ref().err().map_or("up".into(), ToString::to_string)))?;
        held.extend(standing?);
        if audience == Audience::People {
            say_how(run, gateway);
        }
    }
    if !held.is_empty() {
        let down = front::command("down");
        println!("# no gateway is tested: all of this is the stand-in; it ends with Ctrl-C, or with `{down}`");
        cancel.cancelled().await;
    }
    Ok(())
}

fn say_how(run: &PlannedRun, gateway: &GatewayPlan) {
    let environment = run.environment(&gateway.name);
    let version = gateway.versions.get(&gateway.version_of).map(String::as_str).unwrap_or_default();
    println!("# {} {version}", gateway.name);
    println!("export KUBECONFIG={}", environment.kubeconfig.display());
    if let Some(address) = environment.addresses.first() {
        println!("# gateway: http://{address}");
    }
    for note in &environment.notes {
        println!("# {note}");
    }
    if run.plan.run.place.is_real() {
        println!("# take it down again with: {}", front::command("down"));
    }
}

pub async fn doctor(format: options::Format, cancel: &CancellationToken) -> Result<u8, Failure> {
    let mut lines = Vec::new();
    for place in places::of_this_machine() {
        lines.extend(place.doctor(cancel).await);
    }
    lines.extend(places::of_context(None).doctor(cancel).await);
    match format {
        options::Format::Json => println!("{}", serde_json::to_string_pretty(&lines)?),
        options::Format::Text => print!("{}", doctor::Table(&lines)),
    }
    Ok(if doctor::worst(&lines) == doctor::State::Missing { 3 } else { 0 })
}
