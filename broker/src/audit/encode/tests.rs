use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::audit::file::LINE_BYTES_MAX;
use crate::audit::flood::Origin;
use crate::audit::samples;

const AT_MS: u64 = 1_767_225_600_000;

fn encoded(event: &Event, span: Option<&Span>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(event, Stamp { seq: 41, time_ms: AT_MS }, span, &mut out);
    out
}

/// The only line, as a person's tools read it.
fn parsed(bytes: &[u8]) -> Value {
    assert!(bytes.len() <= LINE_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(bytes.last(), Some(&b'\n'));
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
    let text = std::str::from_utf8(bytes).unwrap();
    assert_eq!(text.lines().count(), 1);
    serde_json::from_str(text).unwrap()
}

fn line(event: &Event) -> Value {
    parsed(&encoded(event, None))
}

#[test]
fn each_event_has_its_class_type_severity_and_status() {
    for (event, (name, class_uid, type_uid, severity_id, status_id, disposition_id)) in samples::table() {
        let line = line(&event);
        let number = |key: &str| line[key].as_u64();
        assert_eq!(line["unmapped"]["event"], name);
        assert_eq!(
            (number("class_uid"), number("type_uid"), number("severity_id"), number("status_id")),
            (Some(class_uid), Some(type_uid), Some(severity_id), Some(status_id)),
            "{name}"
        );
        assert_eq!(number("category_uid"), Some(class_uid / 1_000));
        assert_eq!(number("activity_id"), Some(type_uid - class_uid * 100));
        assert_eq!(number("disposition_id"), disposition_id, "{name}");
        assert_eq!(number("action_id"), disposition_id.map(|id| if id == 1 { 1 } else { 2 }), "{name}");
        let profiles = disposition_id.map(|_| serde_json::json!(["security_control"]));
        assert_eq!(line["metadata"].get("profiles"), profiles.as_ref(), "{name}");
        assert_eq!(line["metadata"]["version"], "1.3.0");
        assert_eq!((number("time"), line["unmapped"]["seq"].as_u64()), (Some(AT_MS), Some(41)));
    }
}

/// What each class of the schema must have.
#[test]
fn each_event_has_what_its_class_asks_for() {
    for (event, (name, class_uid, _, _, status_id, _)) in samples::table() {
        let line = line(&event);
        let required: &[&str] = match class_uid {
            2004 => &["/finding_info/title", "/finding_info/uid", "/actor/user/name", "/resources/0/name"],
            3002 => &["/user/name", "/service/name", "/src_endpoint/ip", "/auth_protocol"],
            3004 => &["/entity/type", "/entity/name", "/actor"],
            4001 => &["/src_endpoint/ip", "/src_endpoint/port", "/dst_endpoint/ip", "/dst_endpoint/port"],
            6002 => &["/app/name", "/app/version"],
            6003 => &["/actor/user/name", "/api/operation", "/src_endpoint/ip"],
            other => panic!("no class {other}"),
        };
        for pointer in required {
            assert!(line.pointer(pointer).is_some(), "{name} lacks {pointer}");
        }
        // A failure says why, and evidence speaks for itself.
        assert!(status_id == 1 || name == "equivocation" || line.get("status_detail").is_some(), "{name}");
    }
}

#[test]
fn a_line_reads_like_this() {
    let event = samples::denied(samples::actor(), samples::topic());
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        concat!(
            r#"{{"time":1767225600000,"class_uid":6003,"category_uid":6,"activity_id":1,"type_uid":600301,"#,
            r#""severity_id":2,"status_id":2,"action_id":2,"disposition_id":26,"metadata":{{"product":{{"#,
            r#""name":"sealbus","vendor_name":"sealbus","version":"{}"}},"version":"1.3.0","#,
            r#""profiles":["security_control"]}},"status_detail":"no rule allows it","#,
            r#""actor":{{"user":{{"name":"spiffe://acme.example/orders"}}}},"api":{{"operation":"publish"}},"#,
            r#""src_endpoint":{{"ip":"192.0.2.1","port":5000}},"#,
            r#""resources":[{{"type":"topic","name":"orders/eu/created"}}],"#,
            r#""unmapped":{{"seq":41,"event":"denied","session":17,"code":"DENIED","rule":"(default)"}}}}"#,
            "\n"
        ),
        version
    );
    assert_eq!(String::from_utf8(encoded(&event, None)).unwrap(), expected);
}

#[test]
fn an_aggregated_event_says_how_many_and_when() {
    let span = Span {
        origin: Origin::Network("192.0.2.0".parse().unwrap(), 24),
        count: 1_234,
        start_ms: AT_MS - 10_000,
        end_ms: AT_MS - 1,
    };
    let line = parsed(&encoded(&samples::denied(samples::actor(), samples::topic()), Some(&span)));
    assert_eq!(line["count"], 1_234);
    assert_eq!(
        (line["start_time"].as_u64(), line["end_time"].as_u64()),
        (Some(AT_MS - 10_000), Some(AT_MS - 1))
    );
    assert_eq!(line["unmapped"]["aggregated_from"], "192.0.2.0/24");
}

#[test]
fn evidence_is_kept_to_the_last_byte() {
    for (event, _) in samples::table() {
        let Event::Equivocation { accepted_head, .. } = &event else { continue };
        let line = line(&event);
        assert_eq!(line["unmapped"]["refused_head"], "ab".repeat(296) + &"cd".repeat(64));
        let accepted = accepted_head.as_ref().map(|_| Value::from("01".repeat(296) + &"02".repeat(64)));
        assert_eq!(line["unmapped"].get("accepted_head"), accepted.as_ref());
    }
}

#[test]
fn what_is_too_long_is_cut_and_the_line_says_so() {
    let principal = Principal::parse(&format!("cn:{}", "n".repeat(400))).unwrap();
    let topic = sealbus_protocol::topic::Topic::parse(&"t".repeat(1_000)).unwrap();
    let line = line(&samples::denied(samples::actor_of(principal), topic));
    assert_eq!(line["actor"]["user"]["name"].as_str().unwrap().len(), PRINCIPAL_BYTES);
    assert_eq!(line["resources"][0]["name"].as_str().unwrap().len(), TOPIC_BYTES);
    assert_eq!(line["unmapped"]["is_truncated"], true);
    let short = self::line(&samples::denied(samples::actor(), samples::topic()));
    assert_eq!(short["unmapped"].get("is_truncated"), None);
}

#[test]
fn the_longest_line_fits() {
    let worst = "\u{1}".repeat(10_000);
    for (mut event, (name, ..)) in samples::table() {
        match &mut event {
            Event::PolicyRefused { reason, .. }
            | Event::TlsRefused { reason, .. }
            | Event::SessionRefused { reason, .. }
            | Event::SessionClosed { reason, .. }
            | Event::BatchRefused { reason, .. }
            | Event::HandshakeFailed { detail: reason, .. } => reason.clone_from(&worst),
            Event::SessionOpened { issuer, agent, zone, .. } => {
                issuer.clone_from(&worst);
                agent.clone_from(&worst);
                zone.clone_from(&worst);
            }
            Event::SessionCut { why: CutReason::CertificateRefused(reason), .. }
            | Event::IndexRebuilt { reason } => reason.clone_from(&worst),
            Event::Replaying { stream, .. } => stream.clone_from(&worst),
            Event::Consuming { stream, consumer, .. } => {
                stream.clone_from(&worst);
                consumer.clone_from(&worst);
            }
            Event::Stream { name, change, .. } => {
                name.clone_from(&worst);
                if let StreamChange::Damaged(reason)
                | StreamChange::Stopped(reason)
                | StreamChange::Repaired(reason) = change
                {
                    reason.clone_from(&worst);
                }
            }
            _ => continue,
        }
        let bytes = encoded(&event, None);
        assert!(bytes.len() < LINE_BYTES_MAX / 2, "{name} has {} bytes", bytes.len());
        assert_eq!(parsed(&bytes)["unmapped"]["is_truncated"], true, "{name}");
    }
}

proptest! {
    /// FAILURES T44 and T45: whatever a client calls itself, its topics and its agent, it makes one line, and the
    /// line says what the client said.
    #[test]
    fn any_text_makes_one_line_that_reads_back_equal(
        name in any::<String>(),
        levels in any::<String>(),
        text in any::<String>(),
    ) {
        let cut = |text: &str, bytes_max: usize| text[..text.floor_char_boundary(bytes_max)].to_owned();
        let principal = Principal::parse(&format!("cn:{name}")).unwrap_or_else(|_| samples::principal());
        let topic = sealbus_protocol::topic::Topic::parse(&levels).unwrap_or_else(|_| samples::topic());
        let event = Event::BatchRefused {
            actor: samples::actor_of(principal.clone()),
            topic: topic.clone(),
            code: Code::Gap,
            reason: text.clone(),
        };
        let line = line(&event);
        prop_assert_eq!(&line["actor"]["user"]["name"], &cut(principal.as_str(), PRINCIPAL_BYTES));
        prop_assert_eq!(&line["resources"][0]["name"], &cut(topic.as_str(), TOPIC_BYTES));
        prop_assert_eq!(&line["status_detail"], &cut(&text, REASON_BYTES));
    }
}
