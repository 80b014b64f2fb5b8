//! The health services, on both ports.

use picker::Options;
use rstest::rstest;
use tokio::net::TcpStream;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::served::{Connection, Served, pool, soon};

async fn status(connection: &Connection, service: &str) -> Result<ServingStatus, tonic::Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = soon(HealthClient::new(connection.clone()).check(request)).await.map_err(|status| status.code())?;
    Ok(answer.into_inner().status())
}

#[rstest]
#[case::whole_server("", ServingStatus::Serving)]
#[case::alive("liveness", ServingStatus::Serving)]
#[case::ready("readiness", ServingStatus::NotServing)]
#[case::ext_proc("envoy.service.ext_proc.v3.ExternalProcessor", ServingStatus::NotServing)]
#[case::older("inference-extension", ServingStatus::NotServing)]
#[tokio::test]
async fn a_service(#[case] name: &str, #[case] before: ServingStatus) {
    let served = Served::of(Options::default()).await;
    served.endpoints.send_replace(None);
    let (grpc, health) =
        (served.connect().await, Connection::over(TcpStream::connect(served.health).await.unwrap()).await);
    for (endpoints, expected) in
        [(None, before), (Some(vec![]), ServingStatus::Serving), (pool(&["a:1"]), ServingStatus::Serving)]
    {
        served.endpoints.send_replace(endpoints);
        for connection in [&grpc, &health] {
            let told = async {
                while status(connection, name).await != Ok(expected) {
                    tokio::task::yield_now().await
                }
            };
            soon(told).await;
        }
    }
    assert_eq!(status(&grpc, "something").await, Err(tonic::Code::NotFound));
}

#[tokio::test]
async fn the_health_port_picks_nothing() {
    let served = Served::of(Options::default()).await;
    let health = Connection::over(TcpStream::connect(served.health).await.unwrap()).await;
    let messages = futures::stream::pending();
    let mut client =
        envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient::new(health);
    assert_eq!(soon(client.process(messages)).await.unwrap_err().code(), tonic::Code::Unimplemented);
}
