//! The policy read naively: plain texts, every rule walked in order for every question, recursion where it is
//! clearest. It shares no code with what it judges.

/// A policy as texts; [`Spec::document`] writes it down.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) roles: Vec<(&'static str, Vec<&'static str>)>,
    pub(super) streams: Vec<SpecStream>,
    pub(super) rules: Vec<SpecRule>,
    pub(super) revocations: Vec<(&'static str, Option<u64>)>,
}

#[derive(Debug, Clone)]
pub(super) struct SpecStream {
    pub(super) name: &'static str,
    pub(super) topics: Vec<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) struct SpecRule {
    pub(super) effect: &'static str,
    pub(super) who: Vec<&'static str>,
    pub(super) verbs: Vec<&'static str>,
    /// Of verbs on streams, those that narrow the rule; perhaps none.
    pub(super) topics: Vec<&'static str>,
    pub(super) streams: Vec<&'static str>,
    /// A network, and the beginning of the addresses that are in it.
    pub(super) source: Option<(&'static str, &'static str)>,
    pub(super) zone: Option<&'static str>,
    pub(super) from_s: Option<u64>,
    pub(super) until_s: Option<u64>,
}

/// A question, as texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) who: &'a str,
    pub(super) verb: &'a str,
    pub(super) topic: Option<&'a str>,
    pub(super) stream: Option<&'a str>,
    pub(super) source: &'a str,
    pub(super) zone: Option<&'a str>,
    pub(super) now_s: u64,
}

/// An answer: permitted or not, and the words that name why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Permitted(String),
    Refused(String),
}

impl Spec {
    /// The rule numbered `n` is called `rule-n`. Seconds are those of 1 January 1970, below a minute.
    pub(super) fn document(&self) -> String {
        let list = |items: &[&str]| format!("{items:?}");
        let time = |seconds: u64| format!("\"1970-01-01T00:00:{seconds:02}Z\"");
        let mut text = "version = 1\n[roles]\n".to_owned();
        for (name, members) in &self.roles {
            text += &format!("{name} = {}\n", list(members));
        }
        for (number, stream) in self.streams.iter().enumerate() {
            text += &format!("[[stream]]\nname = \"{}\"\nid = \"{:032x}\"\n", stream.name, number + 1);
            text += &format!("topics = {}\n", list(&stream.topics));
        }
        for (number, rule) in self.rules.iter().enumerate() {
            text += &format!("[[{}]]\nid = \"rule-{number}\"\nwho = {}\n", rule.effect, list(&rule.who));
            text += &format!("verbs = {}\n", list(&rule.verbs));
            if takes_streams(rule.verbs[0]) {
                text += &format!("streams = {}\n", list(&rule.streams));
            }
            if takes_topics(rule.verbs[0]) || (takes_streams(rule.verbs[0]) && !rule.topics.is_empty()) {
                text += &format!("topics = {}\n", list(&rule.topics));
            }
            let conditions = [
                rule.source.map(|(network, _)| format!("source = [\"{network}\"]")),
                rule.zone.map(|zone| format!("zone = \"{zone}\"")),
                rule.from_s.map(|seconds| format!("from = {}", time(seconds))),
                rule.until_s.map(|seconds| format!("until = {}", time(seconds))),
            ];
            let conditions: Vec<String> = conditions.into_iter().flatten().collect();
            if !conditions.is_empty() {
                text += &format!("when = {{ {} }}\n", conditions.join(", "));
            }
        }
        for (principal, from_s) in &self.revocations {
            text += &format!("[[revoke]]\nprincipal = \"{principal}\"\n");
            if let Some(from_s) = from_s {
                text += &format!("from = {}\n", time(*from_s));
            }
        }
        text
    }

    pub(super) fn decide(&self, question: Question<'_>) -> Answer {
        let revocations = self.revocations.iter().enumerate();
        let mut revoked: Vec<_> = revocations
            .filter(|(_, (who, from_s))| *who == question.who && from_s.unwrap_or(0) <= question.now_s)
            .map(|(index, (_, from_s))| (from_s.unwrap_or(0), index))
            .collect();
        revoked.sort_unstable();
        if let Some((_, index)) = revoked.first() {
            return Answer::Refused(format!("the principal is revoked by \"revoke[{index}]\""));
        }
        if question.topic.is_some_and(|topic| topic.starts_with('$')) {
            return Answer::Refused("names that begin with $ are the bus's own".to_owned());
        }
        for (number, rule) in self.rules.iter().enumerate() {
            if rule.effect == "deny" && self.speaks(rule, question) {
                return Answer::Refused(format!("denied by rule \"rule-{number}\""));
            }
        }
        for (number, rule) in self.rules.iter().enumerate() {
            if rule.effect == "allow" && self.speaks(rule, question) {
                return Answer::Permitted(format!("rule-{number}"));
            }
        }
        Answer::Refused("no rule allows it".to_owned())
    }

    fn speaks(&self, rule: &SpecRule, question: Question<'_>) -> bool {
        let is_about = rule.who.iter().any(|who| match who.strip_prefix("role:") {
            Some(role) => {
                let members =
                    self.roles.iter().filter(|(name, _)| *name == role).flat_map(|(_, members)| members);
                members.into_iter().any(|member| is_member(member, question.who))
            }
            None => is_member(who, question.who),
        });
        is_about
            && rule.verbs.contains(&question.verb)
            && question.stream.is_none_or(|stream| rule.streams.contains(&stream))
            && question.topic.is_none_or(|topic| {
                let is_whole_stream = takes_streams(question.verb) && rule.topics.is_empty();
                is_whole_stream || rule.topics.iter().any(|filter| filter_matches(filter, topic))
            })
            && rule.source.is_none_or(|(_, beginning)| question.source.contains(beginning))
            && rule.zone.is_none_or(|zone| question.zone == Some(zone))
            && rule.from_s.is_none_or(|from_s| from_s <= question.now_s)
            && rule.until_s.is_none_or(|until_s| question.now_s < until_s)
    }
}

pub(super) fn takes_topics(verb: &str) -> bool {
    verb == "publish" || verb == "subscribe"
}

pub(super) fn takes_streams(verb: &str) -> bool {
    verb == "replay" || verb == "consume" || verb == "describe"
}

fn is_member(member: &str, who: &str) -> bool {
    match member.strip_suffix('*') {
        Some(beginning) => who.starts_with(beginning) && who != beginning,
        None => member == who,
    }
}

pub(super) fn filter_matches(filter: &str, topic: &str) -> bool {
    fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) => true,
            (["#"], _) => true,
            ([level, filter @ ..], [name, topic @ ..]) => {
                (*level == "+" || level == name) && levels_match(filter, topic)
            }
            _ => false,
        }
    }
    let levels: Vec<&str> = filter.split('/').collect();
    let names: Vec<&str> = topic.split('/').collect();
    let hidden = topic.starts_with('$') && ["+", "#"].contains(&levels[0]);
    !hidden && levels_match(&levels, &names)
}
