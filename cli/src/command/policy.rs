//! `sealbus policy check|reload|can-i`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use sealbus_client::Question;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::limits::POLICY_BYTES_MAX;
use sealbus_protocol::policy::{
    Act, CompiledPolicy, Context as Place, Denial, DocumentError, Name, Narrowed, Policy, PolicyError,
    RuleId, StreamVerb,
};
use sealbus_protocol::topic::{Topic, TopicFilter};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::arguments::ConnectionArguments;
use crate::command::block_on;
use crate::context::{Context, read_bounded};
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};
use crate::style::Style;
use crate::table::fields;
use crate::text;

/// Check, reload and ask the policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Read a policy file and run its tests, without a broker.
    Check {
        /// The policy file.
        file: PathBuf,
        /// How.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
    /// Let the broker read its policy file again (verb `admin`). When this returns, the new policy is in force on
    /// every connection.
    Reload {
        /// How.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
    /// Ask whether something is permitted, and by which rule. Exit code 0: permitted; 1: denied.
    #[command(name = "can-i", after_help = CAN_I_EXAMPLES)]
    CanI(CanIArguments),
}

const CAN_I_EXAMPLES: &str = "\
Examples:
  sealbus policy can-i publish flights/JFK/B6                      asks the broker about this identity
  sealbus policy can-i audit --as spiffe://bus.local/billing       about another one (verb `admin`)
  sealbus policy can-i subscribe 'flights/#' --file policy.toml --as spiffe://bus.local/billing
  sealbus policy can-i consume flights                             a stream";

/// The question.
#[derive(Debug, Args)]
pub(crate) struct CanIArguments {
    /// What to do.
    verb: VerbArgument,
    /// On which topic or stream; with --file, `subscribe` takes a filter too.
    #[arg(
        value_name = "TOPIC|STREAM",
        required_if_eq_any([
            ("verb", "publish"),
            ("verb", "subscribe"),
            ("verb", "replay"),
            ("verb", "consume"),
            ("verb", "describe"),
        ])
    )]
    object: Option<String>,
    /// For whom; yourself when left out.
    #[arg(long = "as", value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Ask this policy file instead of the broker.
    #[arg(long, value_name = "FILE", requires = "principal")]
    file: Option<PathBuf>,
    /// With --file: the address that the principal connects from.
    #[arg(long, value_name = "IP", requires = "file", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    source: IpAddr,
    /// With --file: the zone of the listener that it connects to.
    #[arg(long, value_name = "ZONE", requires = "file")]
    zone: Option<String>,
    /// How.
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// The verbs that can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VerbArgument {
    /// Send messages on a topic.
    Publish,
    /// Receive messages of a topic.
    Subscribe,
    /// Read the history of a stream, or some of it.
    Replay,
    /// Have a durable consumer of a stream, or of some of it.
    Consume,
    /// See the settings and the state of a stream.
    Describe,
    /// Reload the policy.
    Admin,
    /// Read the audit log.
    Audit,
}

pub(crate) fn run(command: &PolicyCommand, connection: &ConnectionArguments) -> Result<Verdict, Failure> {
    match command {
        PolicyCommand::Check { file, output } => check(file, *output),
        PolicyCommand::Reload { output } => block_on(reload(connection, *output)),
        PolicyCommand::CanI(arguments) => match &arguments.file {
            Some(file) => can_i_by_file(arguments, file),
            None => block_on(can_i_by_broker(arguments, connection)),
        },
    }
}

fn check(file: &Path, format: Format) -> Result<Verdict, Failure> {
    let (text, compiled) = load(file)?;
    let summary = compiled.summary();
    let hash = text::hex(&Sha256::digest(text.as_bytes()));
    let object = || {
        json!({
            "file": file.display().to_string(), "version": summary.version, "allow": summary.allows,
            "deny": summary.denies, "roles": summary.roles, "revocations": summary.revocations,
            "streams": summary.streams, "tests": summary.tests, "sha256": hash,
        })
    };
    match format {
        Format::Table => {
            let table = fields([
                ("version", summary.version.to_string()),
                ("allow", summary.allows.to_string()),
                ("deny", summary.denies.to_string()),
                ("roles", summary.roles.to_string()),
                ("streams", summary.streams.to_string()),
                ("revoked", summary.revocations.to_string()),
                ("tests", format!("{}, all met", summary.tests)),
                ("sha-256", hash),
            ]);
            let good = Style::of(&std::io::stdout()).green("good");
            output::print(&format!("{}: {good}\n{table}", text::visible(&file.display().to_string())))?;
        }
        Format::Json => output::print(&format!("{:#}\n", object()))?,
        Format::Jsonl => output::print(&format!("{}\n", object()))?,
    }
    for advice in compiled.policy().advice() {
        eprintln!("remark: {}", text::visible(&advice.to_string()));
    }
    Ok(Verdict::Done)
}

/// Reads a policy and runs its tests, as the broker does.
pub(crate) fn load(file: &Path) -> Result<(String, CompiledPolicy), Failure> {
    let attempted = || format!("use the policy {}", file.display());
    let text =
        read_bounded(file, POLICY_BYTES_MAX as u64).map_err(|error| Failure::new(attempted(), error))?;
    let policy = Policy::parse(&text).map_err(|error| {
        let failure = Failure::new(attempted(), pointed(&error, &text));
        match error.hint() {
            Some(hint) => failure.advising(hint),
            None => failure,
        }
    })?;
    let compiled =
        CompiledPolicy::compile(policy, text::now_ms()).map_err(|PolicyError::Tests(failures)| {
            let mut found = format!("{} expectation(s) of its own tests are not met", failures.len());
            for failure in &failures {
                let _ = write!(found, "\n{failure}");
            }
            Failure::new(attempted(), found)
                .advising("mend the rules or the tests: a broker refuses this file too")
        })?;
    Ok((text, compiled))
}

/// The error with the line that it is about, and a caret under the place.
fn pointed(error: &DocumentError, text: &str) -> String {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    // One column each, so that the caret stands right; what is shown is made harmless by whoever prints it.
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let number = error.line().to_string();
    let path = if error.path().is_empty() { String::new() } else { format!("{}: ", error.path()) };
    let (before, under) = (" ".repeat(number.len()), " ".repeat(error.column().saturating_sub(1)));
    format!(
        "line {number}, column {}: {path}{}\n{before} |\n{number} | {line}\n{before} | {under}^",
        error.column(),
        error.fault()
    )
}

async fn reload(connection: &ConnectionArguments, format: Format) -> Result<Verdict, Failure> {
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let report = bus.reload_policy().await.map_err(|error| {
        Failure::new(format!("reload the policy of {}", context.server), error)
            .advising("the policy that was in force still is; `sealbus policy check FILE` shows the place")
    })?;
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    let object = || {
        json!({
            "generation": report.policy.generation, "version": report.policy.version, "sha256": report.policy.hash.to_string(),
            "rules_before": report.rules_before, "rules_after": report.rules_after,
            "sessions_cut": report.sessions_cut,
        })
    };
    match format {
        Format::Table => output::print(&fields([
            ("generation", report.policy.generation.to_string()),
            ("version", report.policy.version.to_string()),
            ("sha-256", report.policy.hash.to_string()),
            ("rules", format!("{} before, {} now", report.rules_before, report.rules_after)),
            ("sessions cut", report.sessions_cut.to_string()),
        ]))?,
        Format::Json => output::print(&format!("{:#}\n", object()))?,
        Format::Jsonl => output::print(&format!("{}\n", object()))?,
    }
    Ok(Verdict::Done)
}

/// An answer, from a file or from the broker.
struct Told {
    verdict: Verdict,
    who: String,
    what: String,
    why: String,
}

async fn can_i_by_broker(
    arguments: &CanIArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let question = match arguments.about()? {
        About::Publish(topic) => Question::Publish(concrete(topic)?),
        About::Subscribe(topic) => Question::Subscribe(concrete(topic)?),
        About::Read(StreamVerb::Replay, stream) => Question::Replay(stream),
        About::Read(StreamVerb::Consume, stream) => Question::Consume(stream),
        About::Describe(stream) => Question::Describe(stream),
        About::Admin => Question::Admin,
        About::Audit => Question::Audit,
    };
    let principal = arguments.principal.as_deref().map(principal).transpose()?;
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let who = principal.as_ref().map_or_else(|| bus.principal().to_string(), ToString::to_string);
    let answer = bus.can_i(principal.as_ref(), question).await.map_err(|error| {
        Failure::new(format!("ask {} what {who} may do", context.server), error)
            .advising("asking about others needs the verb `admin`; `--file policy.toml` asks a file instead")
    })?;
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    let verdict = if answer.is_permitted() { Verdict::Done } else { Verdict::Refused };
    tell(&Told { verdict, who, what: what(arguments), why: answer.why }, arguments.output)
}

fn can_i_by_file(arguments: &CanIArguments, file: &Path) -> Result<Verdict, Failure> {
    let who =
        arguments.principal.as_deref().ok_or_else(|| Failure::usage("ask a file", "--as is not given"))?;
    let who = principal(who)?;
    let (_, compiled) = load(file)?;
    let place = Place { source: arguments.source, zone: arguments.zone.as_deref(), now_ms: text::now_ms() };
    let subject = compiled.subject(&who);
    let decide = |act: Act<'_>| match subject.decide(act, &place) {
        Ok(permit) => (Verdict::Done, by_rules(&[permit.rule().clone()], Narrowed::No, "")),
        Err(denial) => refused(&denial),
    };
    let (verdict, why) = match arguments.about()? {
        About::Publish(topic) => decide(Act::Publish(&concrete(topic)?)),
        About::Subscribe(filter) => {
            let filter = TopicFilter::parse(filter)
                .map_err(|error| Failure::usage(format!("ask about the filter {filter}"), error))?;
            match (filter.as_topic(), subject.decide_filter(&filter, &place)) {
                (Some(topic), _) => decide(Act::Subscribe(&topic)),
                (None, Ok(permit)) => {
                    (Verdict::Done, by_rules(permit.rules(), permit.narrowed(), "what the filter matches"))
                }
                (None, Err(denial)) => refused(&denial),
            }
        }
        About::Read(verb, stream) => match subject.decide_stream(verb, &stream, None, &place) {
            Ok(permit) => {
                (Verdict::Done, by_rules(permit.rules(), permit.narrowed(), "what the stream keeps"))
            }
            Err(denial) => refused(&denial),
        },
        About::Describe(stream) => decide(Act::Describe(&stream)),
        About::Admin => decide(Act::Admin),
        About::Audit => decide(Act::Audit),
    };
    tell(&Told { verdict, who: who.to_string(), what: what(arguments), why }, arguments.output)
}

fn tell(told: &Told, format: Format) -> Result<Verdict, Failure> {
    let Told { verdict, who, what, why } = told;
    let is_permitted = *verdict == Verdict::Done;
    let object = || json!({"permitted": is_permitted, "principal": who, "act": what, "why": why});
    match format {
        Format::Table => {
            let style = Style::of(&std::io::stdout());
            let (word, may) = if is_permitted {
                (style.green("permitted"), "may")
            } else {
                (style.red("denied"), "may not")
            };
            let sentence = format!("{who} {may} {what}: {why}");
            output::print(&format!("{word}: {}\n", text::visible(&sentence)))?;
        }
        Format::Json => output::print(&format!("{:#}\n", object()))?,
        Format::Jsonl => output::print(&format!("{}\n", object()))?,
    }
    Ok(*verdict)
}

/// The rules that allow it, with a word when they allow only some of `all`.
fn by_rules(rules: &[RuleId], narrowed: Narrowed, all: &str) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| format!("\"{rule}\"")).collect();
    let only_some = match narrowed {
        Narrowed::No => String::new(),
        Narrowed::Yes => format!(", but only some of {all}"),
    };
    format!("allowed by rule {}{only_some}", rules.join(", "))
}

fn refused(denial: &Denial) -> (Verdict, String) {
    (Verdict::Refused, denial.to_string())
}

/// What a question is about: a verb with what belongs to it.
enum About<'a> {
    Publish(&'a str),
    Subscribe(&'a str),
    Read(StreamVerb, Name),
    Describe(Name),
    Admin,
    Audit,
}

impl CanIArguments {
    fn about(&self) -> Result<About<'_>, Failure> {
        let named = || self.object.as_deref().ok_or_else(|| object_missing(self.verb));
        let of_bus = |about| match &self.object {
            None => Ok(about),
            Some(object) => Err(object_unwanted(object)),
        };
        match self.verb {
            VerbArgument::Publish => named().map(About::Publish),
            VerbArgument::Subscribe => named().map(About::Subscribe),
            VerbArgument::Replay => Ok(About::Read(StreamVerb::Replay, stream(named()?)?)),
            VerbArgument::Consume => Ok(About::Read(StreamVerb::Consume, stream(named()?)?)),
            VerbArgument::Describe => Ok(About::Describe(stream(named()?)?)),
            VerbArgument::Admin => of_bus(About::Admin),
            VerbArgument::Audit => of_bus(About::Audit),
        }
    }
}

fn what(arguments: &CanIArguments) -> String {
    let object = arguments.object.as_deref().unwrap_or_default();
    match arguments.verb {
        VerbArgument::Publish => format!("publish to {object}"),
        VerbArgument::Subscribe => format!("subscribe to {object}"),
        VerbArgument::Replay => format!("replay the stream {object}"),
        VerbArgument::Consume => format!("consume the stream {object}"),
        VerbArgument::Describe => format!("describe the stream {object}"),
        VerbArgument::Admin => "administer the bus".to_owned(),
        VerbArgument::Audit => "read the audit log".to_owned(),
    }
}

fn stream(name: &str) -> Result<Name, Failure> {
    Name::parse(name).map_err(|error| Failure::usage(format!("ask about the stream {name}"), error))
}

fn concrete(topic: &str) -> Result<Topic, Failure> {
    Topic::parse(topic).map_err(|error| {
        Failure::usage(format!("ask about the topic {topic}"), error)
            .advising("ask about one topic; filters are answered with --file and the verb subscribe")
    })
}

fn principal(text: &str) -> Result<Principal, Failure> {
    Principal::parse(text).map_err(|error| {
        Failure::usage(format!("ask about the principal {text}"), error)
            .advising("a principal looks like spiffe://bus.local/billing, dns:billing.example or cn:billing")
    })
}

fn object_missing(verb: VerbArgument) -> Failure {
    let (verbs, object) = match verb {
        VerbArgument::Replay | VerbArgument::Consume | VerbArgument::Describe => ("streams", "no stream"),
        VerbArgument::Publish | VerbArgument::Subscribe | VerbArgument::Admin | VerbArgument::Audit => {
            ("topics", "no topic")
        }
    };
    Failure::usage(format!("ask about a verb on {verbs}"), format!("{object} is given"))
}

fn object_unwanted(object: &str) -> Failure {
    Failure::usage("ask about a verb on the bus", format!("{object} is given"))
        .advising("leave it out: `admin` and `audit` are about the whole bus")
}
