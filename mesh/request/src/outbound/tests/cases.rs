//! Retries, ends and whom the record blames.

use super::*;

const SENT: BodyState = BodyState { upload: Upload::Complete(Some(Duration::ZERO)), repeatable: true, failure: None };
/// More of the body than is kept has passed.
const GONE: BodyState = BodyState { repeatable: false, ..SENT };
/// The caller stalled.
const STALLED: BodyState = BodyState { repeatable: false, failure: Some(Reason::BodyTimeout), ..SENT };
/// The endpoint takes nothing of the body.
const UNTAKEN: BodyState = BodyState { upload: Upload::Untaken(Duration::from_secs(300)), ..SENT };

const GONE_ENDPOINT: AttemptError = AttemptError::gone(Reason::ConnectFailed);
const SILENT: AttemptError = AttemptError::silent();
const STALE: AttemptError = AttemptError::said(Reason::UpstreamReset).blameless();
const RESET: AttemptError = AttemptError::said(Reason::UpstreamReset);
const FULL: AttemptError = AttemptError::full(Reason::RequestLimit);
const NOBODY: AttemptError = AttemptError::connecting(Reason::NoReadyEndpoint);
const GRPC: &[(&str, &[u8])] = &[("content-type", b"application/grpc")];

const CASES: &[Case] = &[
    Case { name: "an answer passes", expected: &["passed: 200", "1 at a: 200, Success", "request: 200"], ..GET },
    Case {
        name: "an error of the application's own passes",
        script: &[Answers(500)],
        expected: &["passed: 500", "1 at a: 500, Failure", "request: 500"],
        ..GET
    },
    Case {
        name: "501 is a statement about the request",
        script: &[Answers(501)],
        expected: &["passed: 501", "1 at a: 501, Success", "request: 501"],
        ..GET
    },
    Case {
        name: "an answer that another endpoint may better is fallen back on only if none does",
        script: &[Answers(503), Answers(200)],
        expected: &["passed: 200", "1 at a: 503, Failure", "2 at a: 200, Success", "request: 200"],
        ..GET
    },
    Case {
        name: "of two such answers the last one passes",
        script: &[Answers(503), Answers(502)],
        expected: &["fell back", "1 at a: 503, Failure", "2 at a: 502, Failure", "request: 503"],
        ..GET
    },
    Case {
        name: "an answer is better than a timeout before it, and a timeout is told if it comes last",
        script: &[Answers(503), Fails(RESET)],
        expected: &[
            "refused: 502 upstream_reset",
            "1 at a: 503, Failure",
            "2 at a: upstream_reset, Failure",
            "request: 502 upstream_reset",
        ],
        ..GET
    },
    Case {
        name: "what is not idempotent is not repeated after an answer",
        script: &[Answers(503)],
        expected: &["passed: 503", "1 at a: 503, Failure", "request: 503"],
        ..POST
    },
    Case {
        name: "what is not idempotent is not repeated after it was sent",
        script: &[Fails(RESET)],
        expected: &["refused: 502 upstream_reset", "1 at a: upstream_reset, Failure", "request: 502 upstream_reset"],
        ..POST
    },
    Case {
        name: "nothing was sent: anything is repeated, in another locality first",
        script: &[Fails(GONE_ENDPOINT), Answers(201)],
        expected: &["passed: 201", "1 at a: connect_failed, Failure", "2 at b: 201, Success", "request: 201"],
        ..POST
    },
    Case {
        name: "four attempts of which nothing was sent are enough",
        endpoints: "abcdef",
        script: &[Fails(GONE_ENDPOINT), Fails(GONE_ENDPOINT), Fails(GONE_ENDPOINT), Fails(GONE_ENDPOINT)],
        expected: &["refused: 502 connect_failed"],
        ..POST
    },
    Case {
        name: "two attempts of which something was sent are enough",
        script: &[Fails(RESET), Fails(RESET)],
        expected: &[
            "refused: 502 upstream_reset",
            "1 at a: upstream_reset, Failure",
            "2 at a: upstream_reset, Failure",
            "request: 502 upstream_reset",
        ],
        ..GET
    },
    Case {
        name: "a kept connection that was closed meanwhile costs no attempt",
        script: &[Fails(STALE), Fails(STALE), Answers(200)],
        expected: &["passed: 200"],
        ..GET
    },
    Case {
        name: "what is not idempotent is not repeated although nobody is to blame",
        script: &[Fails(STALE)],
        expected: &["refused: 502 upstream_reset"],
        ..POST
    },
    Case {
        name: "a silent host takes its locality along",
        script: &[Fails(SILENT), Answers(200)],
        expected: &["passed: 200", "1 at a: upstream_reset, Failure", "2 at b: 200, Success", "request: 200"],
        ..GET
    },
    Case {
        name: "who finds no room elsewhere is told of the limit",
        endpoints: "a",
        script: &[Fails(FULL), Fails(FULL), Fails(FULL), Fails(FULL)],
        expected: &["refused: 503 request_limit"],
        ..GET
    },
    Case {
        name: "a retry that finds nobody does not hide what happened",
        endpoints: "aA",
        script: &[Fails(RESET), Fails(NOBODY), Fails(RESET)],
        expected: &["refused: 502 upstream_reset"],
        ..GET
    },
    Case {
        name: "a node's refusal is not an application's answer",
        endpoints: "A",
        script: &[
            Refused(Reason::AppUnreachable),
            Refused(Reason::AppUnreachable),
            Refused(Reason::AppUnreachable),
            Refused(Reason::AppUnreachable),
        ],
        expected: &["refused: 503 app_unreachable"],
        ..GET
    },
    Case {
        name: "a refusal of the way is repeated elsewhere",
        endpoints: "bA",
        script: &[Refused(Reason::Overloaded), Answers(200)],
        expected: &["passed: 200"],
        ..POST
    },
    Case {
        name: "a body that is gone cannot be sent again",
        body: GONE,
        script: &[Fails(RESET)],
        expected: &["refused: 502 upstream_reset"],
        ..GET
    },
    Case {
        name: "not even to who has not seen it",
        body: GONE,
        script: &[Fails(GONE_ENDPOINT)],
        expected: &["refused: 502 connect_failed"],
        ..POST
    },
    Case {
        name: "a caller that stalls is told so, and nobody else is blamed",
        body: STALLED,
        script: &[Fails(RESET)],
        expected: &["refused: 408 body_timeout", "1 at a: body_timeout, Failure", "request: 408 body_timeout"],
        ..POST
    },
    Case {
        name: "the time is over",
        script: &[TimesOut],
        expected: &[
            "refused: 504 response_timeout",
            "1 at a: response_timeout, Failure",
            "request: 504 response_timeout",
        ],
        ..GET
    },
    Case {
        name: "an endpoint that takes nothing of an upload",
        body: UNTAKEN,
        script: &[TimesOut],
        expected: &["refused: 504 response_timeout"],
        ..POST
    },
    Case {
        name: "what the caller states is the limit",
        fields: &[("x-envoy-expected-rq-timeout-ms", b"100")],
        script: &[TimesOut],
        expected: &["refused: 504 response_timeout"],
        ..GET
    },
    Case {
        name: "there is no time for what Retry-After asks",
        fields: &[("x-envoy-expected-rq-timeout-ms", b"1500")],
        script: &[AnswersLater(503, 2)],
        expected: &["fell back"],
        ..GET
    },
    Case {
        name: "there is time for what Retry-After asks",
        script: &[AnswersLater(503, 2), Answers(200)],
        expected: &["passed: 200"],
        ..GET
    },
    Case {
        name: "an answer that breaks off is no success",
        script: &[Breaks(200, Reason::UpstreamReset)],
        expected: &["passed: 200", "1 at a: 200 upstream_reset, Failure", "request: 200 upstream_reset"],
        ..GET
    },
    Case {
        name: "an answer that its reader lets go of",
        script: &[LetGo(200)],
        expected: &["passed: 200", "1 at a: 200, Cancelled", "request: 200 caller_gone"],
        ..GET
    },
    Case {
        name: "a small answer that breaks off while it is held is made good elsewhere",
        script: &[BreaksHeld(Reason::UpstreamReset), Answers(200)],
        expected: &["passed: 200", "1 at a: upstream_reset, Failure", "2 at a: 200, Success", "request: 200"],
        ..GET
    },
    Case {
        name: "a caller that goes away while it waits",
        script: &[Cancelled],
        expected: &["cancelled", "1 at a: nothing, Cancelled", "request: nothing caller_gone"],
        ..GET
    },
    Case {
        name: "a caller that goes away during the second attempt",
        script: &[Answers(503), Cancelled],
        expected: &["cancelled", "1 at a: 503, Failure", "2 at a: nothing, Cancelled", "request: nothing caller_gone"],
        ..GET
    },
    Case {
        name: "gRPC that says UNAVAILABLE in its head has failed, and passes",
        fields: GRPC,
        script: &[Grpc(14)],
        expected: &["passed: 200", "1 at a: 200, Failure", "request: 200 grpc 14"],
        ..POST
    },
    Case {
        name: "gRPC that says NOT_FOUND has not failed",
        fields: GRPC,
        script: &[Grpc(5)],
        expected: &["passed: 200", "1 at a: 200, Success", "request: 200 grpc 5"],
        ..POST
    },
    Case {
        name: "gRPC that says INTERNAL in its trailers has failed",
        fields: GRPC,
        script: &[Trailers(13)],
        expected: &["passed: 200", "1 at a: 200, Failure", "request: 200 grpc 13"],
        ..POST
    },
    Case {
        name: "a refusal in gRPC's terms",
        fields: GRPC,
        script: &[Fails(RESET)],
        expected: &[
            "refused: 502 upstream_reset",
            "1 at a: upstream_reset, Failure",
            "request: 502 grpc 14 upstream_reset",
        ],
        ..POST
    },
    Case {
        name: "nobody serves",
        endpoints: "",
        script: &[],
        expected: &["refused: 503 no_ready_endpoint", "request: 503 no_ready_endpoint"],
        ..GET
    },
    Case {
        name: "a stream opens",
        method: "CONNECT",
        expected: &["opened", "1 at a: 200, Success", "streamed 10 20", "request: 200"],
        ..GET
    },
    Case {
        name: "a stream of which nothing was sent is tried elsewhere, whatever failed",
        method: "CONNECT",
        script: &[Fails(RESET), Fails(GONE_ENDPOINT), Answers(200)],
        expected: &["opened"],
        ..GET
    },
    Case {
        name: "a stream that finds nobody",
        method: "CONNECT",
        endpoints: "a",
        script: &[Fails(GONE_ENDPOINT)],
        expected: &["refused: 502 connect_failed", "1 at a: connect_failed, Failure", "request: 502 connect_failed"],
        ..GET
    },
    Case {
        name: "a caller that goes away while a stream opens",
        method: "CONNECT",
        script: &[Cancelled],
        expected: &["cancelled", "1 at a: nothing, Cancelled", "request: nothing caller_gone"],
        ..GET
    },
];

#[test]
fn what_becomes_of_requests_is_as_the_table_says() {
    let mut wrong = Vec::new();
    for case in CASES {
        let came = case.play();
        if !came.iter().zip(case.expected).all(|(came, expected)| came == expected) || came.len() < case.expected.len()
        {
            wrong.push(format!("{}:\n    expected {:?}\n    came     {came:?}", case.name, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

#[test]
fn an_attempt_has_a_limit_of_its_own_within_that_of_all() {
    let policy = TrafficPolicy { per_try: Some(Duration::from_secs(4)), ..TrafficPolicy::default() };
    let mut world = World::new("aab", policy);
    let began = world.now;
    let ended = play(&mut world, &head("GET", "/", &()), &BodyState::NONE, &[TimesOut, Answers(200)]);
    assert_eq!(ended, "passed: 200");
    let took = world.now.since(began);
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn an_endpoint_is_charged_for_what_it_does_and_not_for_what_callers_do() {
    for (body, error, down) in [
        (SENT, GONE_ENDPOINT, true),
        (SENT, SILENT, true),
        (SENT, STALE, false),
        (SENT, FULL, false),
        (STALLED, AttemptError { fault: Fault::Down, ..RESET }, false),
    ] {
        let mut world = World::new("a", TrafficPolicy::default());
        let script = [Fails(error); 4];
        play(&mut world, &head("POST", "/", &()), &body, &script);
        let explained = world.entry.service().explain(world.now);
        let endpoint = &explained.priorities[0].localities[0].endpoints[0];
        assert_eq!(endpoint.breaker != "closed", down, "{error:?}: {endpoint:?}");
    }
}

#[test]
fn callers_that_stall_again_and_again_never_cost_an_endpoint_its_traffic() {
    let mut world = World::new("a", TrafficPolicy::default());
    let mut breaker = |body| {
        for _ in 0..20 {
            play(&mut world, &head("POST", "/", &()), &body, &[Fails(RESET)]);
        }
        let explained = world.entry.service().explain(world.now);
        explained.priorities[0].localities[0].endpoints[0].breaker.to_string()
    };
    assert_eq!(breaker(STALLED), "closed");
    assert_ne!(breaker(SENT), "closed", "an endpoint that resets its requests is ejected");
}

#[test]
fn a_request_takes_its_place_from_its_admission_to_the_end_of_its_answer() {
    let mut world = World::new("a", TrafficPolicy { requests: 1, ..TrafficPolicy::default() });
    let (options, recorder, head) = (Arc::clone(&world.options), world.recorder.clone(), head("GET", "/", &()));
    let mut request = Outbound::begin(&recorder, &options, &head, world.now, &mut world.rng);
    request.step(world.now, &mut world.rng);
    request.resolved(Ok(Arc::clone(&world.entry)), &head, world.now, &mut world.rng);
    let Step::Attempt(pick) = request.step(world.now, &mut world.rng) else { panic!("somebody serves") };
    let mut another = |script| play(&mut world, &head, &BodyState::NONE, script);
    assert_eq!(another(&[]), "refused: 503 request_limit", "while it waits for its answer");
    let (now, mut rng) = (world.now, fastrand::Rng::with_seed(1));
    let judged = request.judge(&ResponseHead { status: 200, fields: &() }, None, now).expect("an answer");
    let answer = request.answered(pick, &judged, &BodyState::NONE, now, &mut rng);
    drop(request);
    let mut another = |script| play(&mut world, &head, &BodyState::NONE, script);
    assert_eq!(another(&[]), "refused: 503 request_limit", "while its answer passes");
    drop(answer);
    assert_eq!(another(&[Answers(200)]), "passed: 200");
}

#[test]
fn requests_beyond_the_limit_are_refused_and_streams_have_one_of_their_own() {
    let mut world = World::new("a", TrafficPolicy { requests: 0, streams: 1, ..TrafficPolicy::default() });
    let mut ended = |method, upgrade| {
        let head = RequestHead { upgrade, ..head(method, "/", &()) };
        play(&mut world, &head, &BodyState::NONE, &[Answers(200)])
    };
    assert_eq!(ended("GET", false), "refused: 503 request_limit");
    assert_eq!(ended("CONNECT", false), "opened");
    assert_eq!(ended("GET", true), "passed: 200", "what asks for another protocol is a stream, too");
    let mut world = World::new("a", TrafficPolicy { streams: 0, ..TrafficPolicy::default() });
    let ended = play(&mut world, &head("CONNECT", "", &()), &BodyState::NONE, &[]);
    assert_eq!(ended, "refused: 503 stream_limit");
}

#[test]
fn a_name_that_leads_nowhere_is_told_why() {
    for (authority, told) in [
        ("example.com", "refused: 404 foreign_host"),
        ("payments.mesh.internal", "refused: 400 bad_host"),
        ("unknown.shop.mesh.internal", "refused: 404 unknown_service"),
        ("payments.shop.mesh.internal:81", "refused: 404 unknown_port"),
        ("payments.shop.mesh.internal:443", "refused: 404 plain_http_only"),
        ("payments.shop.ap-south.mesh.internal", "refused: 404 not_offered"),
        ("payments.shop.eu-west.mesh.internal", "passed: 200"),
        ("payments.shop.us-east.mesh.internal:50051", "passed: 200"),
        ("payments.shop.svc.clusterset.local", "passed: 200"),
    ] {
        let mut world = World::new("aA", TrafficPolicy::default());
        let head = RequestHead { authority, ..head("GET", "/", &()) };
        let authority = authority.replace(".svc.clusterset.local", ".mesh.internal");
        let head = RequestHead { authority: &authority, ..head };
        assert_eq!(play(&mut world, &head, &BodyState::NONE, &[Answers(200)]), told, "{authority}");
    }
}

#[test]
fn a_gateways_stream_keeps_away_from_what_its_caller_excludes_and_stays_in_its_cluster() {
    let world = World::new("aabA", TrafficPolicy::default());
    let mut rng = fastrand::Rng::with_seed(3);
    let exclude = [EndpointId::new("p-0"), EndpointId::new("p-1")];
    let exit = Exit { authority: "", entry: &world.entry, port: 80, exclude: &exclude, parent: None };
    let mut stream = Outbound::exit(&(), &world.options, &exit, world.now, &mut rng);
    let Step::Attempt(pick) = stream.step(world.now, &mut rng) else { panic!("there is an endpoint left") };
    assert_eq!(pick.endpoint().map(|endpoint| endpoint.id.to_string()).as_deref(), Some("p-2"));
    stream.failed(&pick, GONE_ENDPOINT, &BodyState::NONE, world.now, &mut rng);
    drop(pick);
    let mut clusters = Vec::new();
    let mut now = world.now;
    loop {
        match stream.step(now, &mut rng) {
            Step::Attempt(pick) => {
                clusters.push(pick.locality.zone.cluster.to_string());
                stream.failed(&pick, GONE_ENDPOINT, &BodyState::NONE, now, &mut rng);
            }
            Step::Wait(wait) => now = now + wait,
            Step::Refuse(refusal) => {
                assert_eq!(refusal.reason, Reason::ConnectFailed);
                break;
            }
            step => panic!("{step:?}"),
        }
    }
    assert!(!clusters.is_empty() && clusters.iter().all(|cluster| cluster == "us-east"), "{clusters:?}");
}
