//! The `sansprop` program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sansprop_lab::cli::main()
}
