use eastway_core::head::{Edits, HttpVersion};

use super::*;

#[test]
fn a_head_is_what_it_was_made_of() {
    let mut head = RequestHead::with_room(HttpVersion::Http2, "GET", "/a?b=c", ("x.y:1", Some(&b"websocket"[..])), 0);
    head.fields.append("X-Twice", b"1");
    head.fields.append("x-twice", b"2");
    assert_eq!((head.method(), head.target(), head.authority()), ("GET", "/a?b=c", "x.y:1"));
    assert_eq!((head.upgrade(), head.is_connect()), (Some(&b"websocket"[..]), false));
    let view = head.view();
    assert_eq!((view.path(), view.fields.text("X-TWICE"), view.fields.count("x-twice")), ("/a", Some("1"), 2));
    assert!(RequestHead::new(HttpVersion::Http11, "CONNECT", "", "a:1").is_connect());
    let switch = ResponseHead::with_room(101, Some(b"websocket"), 0);
    assert!(switch.is_switch() && !switch.is_success() && switch.upgrade() == Some(b"websocket"));
    assert!(ResponseHead::new(204).is_success() && ResponseHead::new(503).is_server_error());
}

#[test]
fn later_edits_win_and_what_is_no_field_is_left_out() {
    let mut head = ResponseHead::new(200);
    for (name, value) in
        [("eastway-source", "x"), ("Eastway_Source", "x"), ("X", "1"), ("x", "2"), ("via", "1.1 other")]
    {
        head.fields.append(name, value.as_bytes());
    }
    let mut edits = Edits::new();
    edits.drop_prefix("eastway-").set("eastway-zone", "a").drop("x").append("via", "2.0 eastway");
    edits.set("x-broken", "a\nb").set("content-length", "1").set("connection", "x");
    let response = Response::new(head, Body::empty()).edited(&edits);
    let fields: Vec<_> = response.head.fields.iter().collect();
    let expected: [(&[u8], &[u8]); 3] = [(b"via", b"1.1 other"), (b"eastway-zone", b"a"), (b"via", b"2.0 eastway")];
    assert_eq!(fields, expected);
}

#[test]
fn what_may_be_a_credential_is_not_shown() {
    let mut head = RequestHead::new(HttpVersion::Http11, "GET", "/", "a");
    head.fields.append("authorization", b"secret");
    assert_eq!(format!("{head:?} {:?}", head.fields), r#"GET / for a ["authorization"]"#);
}
