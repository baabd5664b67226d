//! What is on the wire never changes its meaning: agents and control planes of different ages meet.
//!
//! `recorded/contract-v1.txt` is every field, value and call that there ever was, one a line. What is in it
//! stays as it is; what is new is added to it by `UPDATE_CONTRACT=1`, which takes nothing away.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it as its body does")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto, field_descriptor_proto::Label,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn today() -> FileDescriptorSet {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join("mendix/agent/v1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "proto"))
        .collect();
    files.sort();
    protox::compile(&files, [root()]).unwrap()
}

/// Everything that decides how bytes are read, one line each.
fn lines(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("mendix.")) {
        for message in &file.message_type {
            of_message(file.package(), message, &mut lines);
        }
        for values in &file.enum_type {
            of_enum(file.package(), values, &mut lines);
        }
        for service in &file.service {
            of_service(file.package(), service, &mut lines);
        }
    }
    lines
}

fn of_message(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        lines.insert(of_field(&name, message, field));
    }
    for nested in &message.nested_type {
        of_message(&name, nested, lines);
    }
    for values in &message.enum_type {
        of_enum(&name, values, lines);
    }
}

fn of_field(name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.type_name() {
        "" => field.r#type().as_str_name().trim_start_matches("TYPE_").to_ascii_lowercase(),
        named => named.trim_start_matches('.').to_owned(),
    };
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let optional = if field.proto3_optional() { "optional " } else { "" };
    let within = match field.oneof_index {
        Some(index) if !field.proto3_optional() => {
            let index = usize::try_from(index).unwrap();
            format!(" of {}", message.oneof_decl[index].name())
        }
        _ => String::new(),
    };
    // Packed or not, both are read; the rest of what a field may say is not about bytes.
    format!("field {name} {} {repeated}{optional}{kind} {}{within}", field.number(), field.name())
}

fn of_enum(scope: &str, values: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &values.value {
        lines.insert(format!(
            "value {scope}.{} {} {}",
            values.name(),
            value.number(),
            value.name()
        ));
    }
}

fn of_service(scope: &str, service: &ServiceDescriptorProto, lines: &mut BTreeSet<String>) {
    let stream = |streams: bool| if streams { "stream " } else { "" };
    for method in &service.method {
        lines.insert(format!(
            "call {scope}.{}/{} {}{} {}{}",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type().trim_start_matches('.'),
            stream(method.server_streaming()),
            method.output_type().trim_start_matches('.'),
        ));
    }
}

/// What was written down and is not so any more.
fn broken<'a>(written: &'a BTreeSet<String>, today: &'a BTreeSet<String>) -> Vec<&'a str> {
    written.difference(today).map(String::as_str).collect()
}

fn written() -> (PathBuf, BTreeSet<String>) {
    let path = root().join("recorded/contract-v1.txt");
    let text = fs::read_to_string(&path).unwrap_or_default();
    (path, text.lines().map(ToOwned::to_owned).collect())
}

#[test]
fn nothing_that_was_on_the_wire_is_gone_or_means_something_else() {
    let (_, written) = written();
    assert!(written.len() > 200, "only {} lines", written.len());
    let today = lines(&today());
    let broken = broken(&written, &today);
    assert!(
        broken.is_empty(),
        "ends that were built before would misread this. Leave it, and add a field with a new number \
         (docs/protocol.md):\n{}",
        broken.join("\n")
    );
}

#[test]
fn what_is_new_on_the_wire_is_written_down_before_it_is_relied_on() {
    let (path, mut written) = written();
    let today = lines(&today());
    if std::env::var_os("UPDATE_CONTRACT").is_some() {
        written.extend(today.iter().cloned());
        let text: Vec<&str> = written.iter().map(String::as_str).collect();
        fs::write(&path, text.join("\n") + "\n").unwrap();
    }
    let new: Vec<&str> = today.difference(&written).map(String::as_str).collect();
    assert!(new.is_empty(), "run this test once with UPDATE_CONTRACT=1:\n{}", new.join("\n"));
}

/// Today's contract, changed in the message, enum and service of these names.
fn changed(change: impl Fn(&mut FileDescriptorSet)) -> BTreeSet<String> {
    let mut set = today();
    change(&mut set);
    lines(&set)
}

fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
    set.file
        .iter_mut()
        .flat_map(|file| &mut file.message_type)
        .find(|message| message.name() == name)
        .unwrap()
}

fn field<'a>(set: &'a mut FileDescriptorSet, of: &str, name: &str) -> &'a mut FieldDescriptorProto {
    message(set, of).field.iter_mut().find(|field| field.name() == name).unwrap()
}

#[test]
fn each_kind_of_breaking_change_is_found_and_an_addition_is_none() {
    use prost_types::field_descriptor_proto::Type;

    let before = lines(&today());
    type Change = fn(&mut FileDescriptorSet);
    let breaking: [(&str, Change); 9] = [
        ("a field is gone", |set| {
            message(set, "Hello").field.retain(|field| field.name() != "boot_id");
        }),
        ("a field has another number", |set| {
            field(set, "Hello", "boot_id").number = Some(99);
        }),
        ("two fields swap their numbers", |set| {
            field(set, "Hello", "protocol_min").number = Some(6);
            field(set, "Hello", "protocol_max").number = Some(5);
        }),
        ("a field has another type", |set| {
            field(set, "Hello", "lease_epoch").set_type(Type::Sint64);
        }),
        ("a field is repeated", |set| {
            field(set, "Hello", "boot_id").set_label(Label::Repeated);
        }),
        ("a field leaves its oneof", |set| {
            field(set, "AgentMessage", "heartbeat").oneof_index = None;
        }),
        ("a message has another type", |set| {
            field(set, "AgentMessage", "heartbeat").type_name =
                Some(".mendix.agent.v1.Hello".into());
        }),
        ("a value has another number", |set| {
            let values = set.file.iter_mut().flat_map(|file| &mut file.enum_type);
            let status = values.into_iter().find(|it| it.name() == "TicketStatus").unwrap();
            status.value.iter_mut().find(|it| it.name().ends_with("SOLVED")).unwrap().number =
                Some(9);
        }),
        ("a call does not stream any more", |set| {
            let services = set.file.iter_mut().flat_map(|file| &mut file.service);
            let control = services.into_iter().find(|it| it.name() == "ControlService").unwrap();
            control.method[0].server_streaming = Some(false);
        }),
    ];
    for (what, change) in breaking {
        let after = changed(change);
        assert!(!broken(&before, &after).is_empty(), "{what}");
    }
    let added = changed(|set| {
        let mut new = field(set, "Hello", "boot_id").clone();
        new.name = Some("of_2030".into());
        new.number = Some(30);
        message(set, "Hello").field.push(new);
    });
    assert_eq!(broken(&before, &added), Vec::<&str>::new());
    assert_eq!(added.difference(&before).count(), 1);
}
