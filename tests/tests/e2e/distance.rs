//! Regions at different distances: where requests go while the path to the nearest one is lost, and how they come home.

use std::net::IpAddr;
use std::time::Duration;

use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, PAYMENTS_SPEC, StoreKind, service};
use eastway_tests::relay::DatagramRelay;
use eastway_tests::{check, client, eventually};

/// The regions that serve us-east, and half of the round trip to each.
const NEAR: (&str, Duration) = ("eu-west", Duration::from_millis(20));
const FAR: (&str, Duration) = ("ap-south", Duration::from_millis(50));
/// The paths to both lose one of so many datagrams at all times.
const LOSS: u32 = 50;

/// us-east calls payments, which is in two other regions only.
struct Regions {
    _lab: Lab,
    storefront: LabNode,
    /// The way to the near region, and the way back.
    near: [DatagramRelay; 2],
}

impl Regions {
    fn start() -> Self {
        let mut lab = Lab::new();
        let names = ["us-east", NEAR.0, FAR.0];
        for name in names {
            lab.plan(name, StoreKind::Embedded, "");
        }
        let [near, far] = [NEAR, FAR].map(|(region, one_way)| {
            [("us-east", region), (region, "us-east")].map(|(from, to)| {
                DatagramRelay::start(IpAddr::V4(lab.gateway(from).ip), lab.gateway(to).at(15443), one_way)
            })
        });
        let peer = |name: &str, relay: &DatagramRelay| lab.peer_at(name, &[relay.address()], "imports: ['shop/*']");
        let quick = service("payments", &format!("{PAYMENTS_SPEC}, balancing: {{ ramp: 6s }}"));
        lab.declare("us-east", &[quick, peer(NEAR.0, &near[0]), peer(FAR.0, &far[0])]);
        lab.declare(NEAR.0, &[service("payments", PAYMENTS_SPEC), peer("us-east", &near[1])]);
        lab.declare(FAR.0, &[service("payments", PAYMENTS_SPEC), peer("us-east", &far[1])]);
        for name in names {
            lab.start_gateway(name);
        }
        for name in [NEAR.0, FAR.0] {
            lab.payments(name, "a", "payments-1");
        }
        let storefront = lab.storefront("us-east", "a");
        // Only what the caller has seen ready can take over without a gap.
        for name in [NEAR.0, FAR.0] {
            let url = format!("http://payments.shop.{name}.mesh.internal/");
            eventually(&url, || {
                let answer = client::get(storefront.proxy(), &url)?;
                check(answer.status == 200, || format!("{answer:?}"))
            });
        }
        near.iter().chain(&far).for_each(|relay| relay.drop_one_in(LOSS));
        Self { _lab: lab, storefront, near }
    }

    /// The share of the near region in percent, as the caller's sidecar divides its requests now; none if it does not know it.
    fn share(&self) -> Result<f64, String> {
        let answer = client::get(self.storefront.at(15000), "/explain/shop/payments")?;
        check(answer.status == 200, || format!("{answer:?}"))?;
        let answer = answer.json();
        let priorities = answer["priorities"].as_array().into_iter().flatten();
        let mut localities = priorities.flat_map(|priority| priority["localities"].as_array().into_iter().flatten());
        let near = format!("{}/a", NEAR.0);
        let locality = localities.find(|locality| locality["name"].as_str() == Some(&*near));
        locality.and_then(|locality| locality["share"].as_f64()).ok_or_else(|| format!("{answer}"))
    }

    /// Waits until the share of the near region is `percent`, and answers all that it was meanwhile.
    fn comes_to(&self, percent: f64) -> Vec<f64> {
        let mut seen = Vec::new();
        eventually(&format!("{percent} % for {}", NEAR.0), || {
            seen.push(self.share()?);
            check(seen.last() == Some(&percent), || format!("{seen:?}"))
        });
        seen
    }
}

#[test]
fn a_near_region_whose_path_was_silent_gets_its_traffic_back_in_one_go_and_no_request_fails() {
    let regions = Regions::start();
    // Both are measured: twenty pings each.
    regions.comes_to(100.0);
    let caller = Caller::start(regions.storefront.proxy(), PAYMENTS);
    caller.answers(50);
    regions.near.iter().for_each(|relay| relay.drop_one_in(1));
    regions.comes_to(0.0);
    // Long enough for its control connection to be given up and dialled again in vain.
    caller.answers(300);
    assert_eq!(regions.share(), Ok(0.0));
    regions.near.iter().for_each(|relay| relay.drop_one_in(LOSS));
    let home = regions.comes_to(100.0);
    assert!(home.is_sorted(), "{home:?}");
    // There it stays.
    caller.answers(100);
    assert_eq!(regions.share(), Ok(100.0));
    caller.finish_without_failure();
}
