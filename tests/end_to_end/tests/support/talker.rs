//! `merestone-workload` and a line to it; there is no Python in a guest.

use super::{Cgroup, Kept, Node, binary};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Talker {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _child: Kept,
}

impl Talker {
    pub(crate) fn start(cgroup: &Cgroup, node: Option<&Node>) -> Self {
        let mut command = Command::new(binary("merestone-workload"));
        command.arg(&cgroup.0).args(node.map(|node| &node.0));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child: Child = child.expect("the workload starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            input,
            output,
            _child: Kept(child),
        }
    }

    /// Has it try, and gives `sent` or the error number.
    pub(crate) fn try_this(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("writes");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("reads");
        answer.trim().to_owned()
    }
}
