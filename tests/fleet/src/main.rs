//! `mendix-fleet`: load on a control plane, from thousands of agents. Each command is one run; its
//! result is a table, or JSON with `--output json`. The exit code is 1 when a goal was missed.
//!
//! `cargo build --release -p mendix-fleet && target/release/mendix-fleet restart --agents 5000`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use mendix_fleet::{
    measure::{self, Ending, Load, Restart, Sessions, Soak},
    picture::Picture,
};

#[derive(Debug, Parser)]
#[command(name = "mendix-fleet", version)]
struct Cli {
    /// How the result is printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// How many agents start in a second.
    #[arg(long, global = true, default_value_t = 200)]
    per_second: u32,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What sessions cost the server.
    Sessions {
        /// How many agents.
        #[arg(long, default_value_t = 500)]
        agents: u32,
        /// How long they are held, seconds.
        #[arg(long, default_value_t = 20)]
        hold: u64,
        /// Goal: KiB of the server's memory for one session.
        #[arg(long, default_value_t = 48.0)]
        goal: f64,
    },
    /// How agents come back after the server was restarted.
    Restart {
        /// How many agents.
        #[arg(long, default_value_t = 5000)]
        agents: u32,
        /// Over how many seconds the server asks them to come back.
        #[arg(long, default_value_t = 60)]
        spread: u64,
        /// How the server goes down.
        #[arg(long, value_enum, default_value_t = Ending::Drain)]
        ending: Ending,
        /// Write the curve of connects here, as SVG.
        #[arg(long)]
        picture: Option<PathBuf>,
    },
    /// Many replaced sessions and reports for a time; run it where packets get lost.
    Soak {
        /// How many agents.
        #[arg(long, default_value_t = 200)]
        agents: u32,
        /// How long, seconds.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
}

/// Goal for 99 of 100 agents after a server that was killed is back, seconds.
const COMEBACK_GOAL: f64 = 2.0;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let program = std::env::current_exe()?.with_file_name("mendix-fleet-plane");
    let load = |agents| Load { program, agents, per_second: cli.per_second };
    let missed = match cli.command {
        Command::Sessions { agents, hold, goal } => {
            let result = measure::sessions(&load(agents), Duration::from_secs(hold)).await?;
            print(cli.output, &result, sessions_rows)?;
            missed_sessions(&result, goal)
        }
        Command::Restart { agents, spread, ending, picture } => {
            let spread = Duration::from_secs(spread);
            let result = measure::restart(&load(agents), ending, spread).await?;
            if let Some(path) = picture {
                draw(&result, &path)?;
            }
            print(cli.output, &result, restart_rows)?;
            missed_restart(&result)
        }
        Command::Soak { agents, seconds } => {
            let result = measure::soak(&load(agents), Duration::from_secs(seconds)).await?;
            print(cli.output, &result, soak_rows)?;
            result.grew
        }
    };
    for goal in &missed {
        eprintln!("missed: {goal}");
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn missed_sessions(result: &Sessions, goal: f64) -> Vec<String> {
    let mut missed = Vec::new();
    if result.kib_per_session > goal {
        missed.push(format!("{:.1} KiB a session, the goal is {goal}", result.kib_per_session));
    }
    if result.lost > 0 {
        missed.push(format!("{} idle sessions were lost", result.lost));
    }
    missed
}

fn missed_restart(result: &Restart) -> Vec<String> {
    let mut missed = Vec::new();
    if result.starved > 0 {
        missed.push(format!("{} agents did not come back", result.starved));
    }
    let peak = f64::from(result.peak_dials);
    match result.ending {
        Ending::Drain if peak > result.limit => {
            missed.push(format!("{peak} dials in one second, the goal is {:.0}", result.limit));
        }
        Ending::Kill if result.comeback_p99 > COMEBACK_GOAL => missed.push(format!(
            "99 of 100 agents were back after {:.1} s, the goal is {COMEBACK_GOAL} s",
            result.comeback_p99
        )),
        _ => {}
    }
    missed
}

fn draw(result: &Restart, path: &PathBuf) -> Result<()> {
    let title = format!(
        "{} agents come back after a restart, told to spread over {:.0} s",
        result.agents, result.spread_seconds
    );
    let picture =
        Picture { title: &title, unit: "Connects", values: &result.dials, limit: result.limit };
    std::fs::write(path, picture.svg()).with_context(|| format!("write {}", path.display()))
}

type Rows = Vec<(&'static str, String)>;

fn print<T: serde::Serialize>(output: Output, result: &T, rows: fn(&T) -> Rows) -> Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(result)?),
        Output::Table => {
            let mut table = Table::new();
            table.load_style(presets::UTF8_FULL_CONDENSED);
            for (name, value) in rows(result) {
                table.add_row([name, &value]);
            }
            println!("{table}");
        }
    }
    Ok(())
}

fn sessions_rows(result: &Sessions) -> Rows {
    let (empty, full) = result.server_kib;
    vec![
        ("sessions", result.agents.to_string()),
        ("all connected after, s", format!("{:.1}", result.connect_seconds)),
        ("server, MiB empty", format!("{:.1}", empty as f64 / 1024.0)),
        ("server, MiB", format!("{:.1}", full as f64 / 1024.0)),
        ("server, KiB a session", format!("{:.1}", result.kib_per_session)),
        ("fleet, KiB an agent", format!("{:.1}", result.kib_per_agent)),
        ("server, millicores idle", format!("{:.1}", result.server_millicores)),
        ("lost while idle", result.lost.to_string()),
    ]
}

fn restart_rows(result: &Restart) -> Rows {
    vec![
        ("agents", result.agents.to_string()),
        ("ending", format!("{:?}", result.ending)),
        ("spread, s", format!("{:.0}", result.spread_seconds)),
        ("server was away, s", format!("{:.1}", result.down_seconds)),
        ("starved", result.starved.to_string()),
        ("peak of dials in a second", result.peak_dials.to_string()),
        ("peak of connects in a second", result.peak_connects.to_string()),
        ("2 × agents / spread", format!("{:.0}", result.limit)),
        ("back after the server, s (p50)", format!("{:.2}", result.comeback_p50)),
        ("back after the server, s (p99)", format!("{:.2}", result.comeback_p99)),
        ("back after the server, s (last)", format!("{:.2}", result.comeback_last)),
    ]
}

fn soak_rows(result: &Soak) -> Rows {
    let ends = |figure: fn(&measure::Look) -> u64| {
        let first = result.looks.get(result.looks.len() / 4).map_or(0, figure);
        let last = result.looks.last().map_or(0, figure);
        format!("{first} → {last}")
    };
    vec![
        ("agents", result.agents.to_string()),
        ("seconds", result.looks.last().map_or(0, |look| look.second).to_string()),
        ("sessions lost", result.lost.to_string()),
        ("sessions regained", result.connects.to_string()),
        ("least connected", format!("{:.3}", result.least_connected)),
        ("server, KiB", ends(|look| look.server.resident_kib)),
        ("agents, KiB", ends(|look| look.agents.resident_kib)),
        ("server, descriptors", ends(|look| look.server.descriptors)),
        ("agents, descriptors", ends(|look| look.agents.descriptors)),
        ("agents, tasks", ends(|look| look.tasks as u64)),
    ]
}
