//! `conduit completion`: a script that makes a shell complete commands and flags.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::aot::{self, Shell};

use crate::{
    args::{Cli, Global},
    output,
};

/// Print a script that makes your shell complete conduit's commands and flags
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(conduit completion bash)
  conduit completion zsh > \"${fpath[1]}/_conduit\"
  conduit completion fish > ~/.config/fish/completions/conduit.fish
  conduit completion powershell | Out-String | Invoke-Expression")]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// Stdout cannot be written.
pub async fn run(args: Args, _: &Global) -> anyhow::Result<ExitCode> {
    output::stdout(&script(args.shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    aot::generate(shell, &mut Cli::command(), "conduit", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["version", "completion", "upgrade", "conduit-namespace"] {
                assert!(script.contains(word), "{shell:?} lacks {word}");
            }
        }
    }

    #[test]
    fn types_of_resources_are_completed() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for word in ["pods", "statefulsets", "authorities"] {
                assert!(script.contains(word), "{shell:?} lacks {word}");
            }
        }
    }
}
