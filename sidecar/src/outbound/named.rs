//! Connections to a name's own address: where they lead is known before anything is read.

use std::rc::Rc;

use eastway_core::Authority;
use eastway_core::resource::Protocol;
use eastway_http::RequestHead;
use eastway_http::server::ServerOptions;
use eastway_transport::{Io, accept};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{connection, opaque};
use crate::virtuals::{Lead, Opened};
use crate::worker::Worker;

/// The listener's name in logs.
const LISTENER: &str = "a name's address";
/// The port of `http://` where none is written.
const HTTP: u16 = 80;

/// Accepts connections at the addresses that are handed over, until nobody hands over any more.
pub(crate) async fn listen(worker: Rc<Worker>, mut taken: mpsc::UnboundedReceiver<Opened>) {
    let options = super::options(&worker);
    loop {
        let opened = tokio::select! {
            opened = taken.recv() => opened,
            () = worker.node.draining.wait() => return,
        };
        let Some(opened) = opened else { return };
        tokio::task::spawn_local(serve(Rc::clone(&worker), opened, Rc::clone(&options)));
    }
}

async fn serve(worker: Rc<Worker>, opened: Opened, options: Rc<ServerOptions>) {
    let Opened { listener, lead: Lead { target, protocol, used }, mut closed } = opened;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "a name's address cannot be served"),
    };
    let stop = async {
        tokio::select! {
            () = worker.node.draining.wait() => {}
            // It never changes: it ends.
            _ = closed.changed() => {}
        }
    };
    let admit = || Some((worker.outbound_place()?, used.begin()));
    let target = Rc::new(Target::new(target, &worker.node.config.suffix));
    accept::each(listener, LISTENER, stop, admit, |stream| {
        let (worker, options, target) = (Rc::clone(&worker), Rc::clone(&options), Rc::clone(&target));
        async move { lead(worker, stream, &options, (target, protocol)).await }
    })
    .await;
}

/// Leads a connection to the target by what is spoken there.
pub(super) async fn lead(
    worker: Rc<Worker>,
    stream: Io,
    options: &ServerOptions,
    (target, protocol): (Rc<Target>, Protocol),
) {
    match protocol {
        Protocol::Tcp => opaque::connect(worker, stream, Rc::clone(&target.text)).await,
        Protocol::Http | Protocol::Grpc => connection(worker, stream, options, Some(target)).await,
    }
}

/// Where the requests at an address lead, whatever host they name.
pub(super) struct Target {
    authority: Authority,
    text: Rc<str>,
    suffix: String,
}

impl Target {
    pub(super) fn new(authority: Authority, suffix: &str) -> Self {
        let text = authority.to_text(suffix).into();
        Self { authority, text, suffix: suffix.to_owned() }
    }

    /// Sees to it that the request names what it leads to. The host that its client wrote is kept as `x-forwarded-host`.
    pub(super) fn direct(&self, head: &mut RequestHead) {
        if !self.is_named_by(head.authority()) {
            let written = head.authority().to_owned();
            head.set_authority(&self.text);
            if head.fields.get(FORWARDED_HOST).is_none() {
                head.fields.append(FORWARDED_HOST, written.as_bytes());
            }
        }
    }

    fn is_named_by(&self, written: &str) -> bool {
        Authority::parse(written, &self.suffix).is_ok_and(|named| {
            let Authority { service, cluster, port } = &self.authority;
            named.service == *service && named.cluster == *cluster && named.port.or(Some(HTTP)) == *port
        })
    }
}

const FORWARDED_HOST: &str = "x-forwarded-host";

#[cfg(test)]
mod tests {
    use eastway_core::head::HttpVersion;

    use super::*;

    fn directed(target: &str, written: &str) -> (String, Option<String>) {
        let target = Target::new(Authority::parse(target, "mesh.internal").expect("a target"), "mesh.internal");
        let mut head = RequestHead::new(HttpVersion::Http11, "GET", "/a", written);
        target.direct(&mut head);
        assert_eq!((head.method(), head.target()), ("GET", "/a"));
        let forwarded = head.fields.get(FORWARDED_HOST).map(|host| String::from_utf8_lossy(host).into_owned());
        (head.authority().to_owned(), forwarded)
    }

    #[test]
    fn a_request_names_what_its_address_stands_for() {
        let written = |host: &str| Some(host.to_owned());
        for host in
            ["payments.shop.mesh.internal", "Payments.Shop.mesh.internal:80", "payments.shop.svc.clusterset.local"]
        {
            assert_eq!(directed("payments.shop.mesh.internal:80", host), (host.to_owned(), None), "it does already");
        }
        let named = |host: &str| directed("payments.shop.eu-west.mesh.internal:8080", host);
        for host in [
            "payments",
            "127.64.1.7:8080",
            "payments.shop.mesh.internal:8080",
            "ledger.shop.eu-west.mesh.internal:8080",
        ] {
            assert_eq!(named(host), ("payments.shop.eu-west.mesh.internal:8080".to_owned(), written(host)));
        }
    }
}
