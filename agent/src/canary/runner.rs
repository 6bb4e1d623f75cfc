//! The agent's half: who is next, what the kernel counted, what is told.
//!
//! One try at a time, so that a count that moves is that try's. Between two
//! rounds nothing runs. It never waits: the agent's loop calls it when an
//! answer is there or a moment has come.

use super::cage::Cage;
use super::choose::{Covered, Outside, V4, V6};
use super::counts::Counts;
use super::judge::{Judged, Moved, judge};
use super::vector::{VECTORS, Vector};
use super::words::{Answer, Order, Outcome, Result};
use crate::api::{CanaryInfo, DrillRow, Reply};
use crate::bpf::Kernel;
use crate::policy::Compiled;
use merestone_abi::{Event, EventKind, GroupCount, GroupId, Verdict};
use merestone_evidence as evidence;
use merestone_evidence::Body;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Ways out that one round tries: all of them within seven rounds.
const A_ROUND: usize = 5;
/// How long the kernel's events and the last packets of a try are waited for.
const SETTLE: Duration = Duration::from_millis(25);
/// How long the canary may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after a try its events may come.
const AFTERLIFE: Duration = Duration::from_secs(2);
/// Where the canary itself failed, this is the way out's name.
const GUARD: &str = "guard";

/// What a try needs to know of the rest of the agent.
#[derive(Debug)]
pub struct Context<'a> {
    /// The kernel side.
    pub kernel: &'a Kernel,
    /// The boundary in force.
    pub boundary: &'a Compiled,
}

/// Something for the log, and for the operator where it failed.
#[derive(Debug)]
pub struct Told {
    /// The entry.
    pub body: Body,
    /// The line that operators are alerted with.
    pub alert: Option<String>,
}

/// Why the agent's loop was woken.
#[derive(Debug)]
pub enum Wake {
    /// The canary said something; none: it has ended.
    Heard(Option<Answer>),
    /// A moment has come.
    Due,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Run {
    Canary,
    Drill,
}

impl Run {
    const fn word(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Drill => "drill",
        }
    }
}

/// A try that is under way.
#[derive(Debug)]
struct Running {
    vector: &'static Vector,
    run: Run,
    before: GroupCount,
    /// What the canary answered.
    outcome: Option<Outcome>,
    /// When it is looked at: after its events, or because it took too long.
    look: Instant,
    /// The first refusal that the kernel reported.
    event: Option<Event>,
}

#[derive(Debug)]
enum State {
    /// It has not been told to open its node, or has not answered.
    Waiting,
    Guarded(GroupId),
    /// Why it is of no use any more.
    Failed(String),
}

/// The canary, as the agent's loop drives it.
#[derive(Debug)]
pub struct Canary {
    cage: Option<Cage>,
    state: State,
    orders: Option<mpsc::UnboundedSender<Order>>,
    answers: Option<mpsc::UnboundedReceiver<Answer>>,
    covered: Covered,
    /// Where the sockets lead that are older than the guarding.
    older: (Ipv4Addr, Ipv6Addr),
    interval: Duration,
    next_round: Instant,
    next_vector: usize,
    queue: VecDeque<(usize, Run)>,
    running: Option<Running>,
    quiet: Instant,
    rows: Vec<DrillRow>,
    drills: Vec<oneshot::Sender<Reply>>,
    counts: Counts,
}

/// What is tried, by name.
pub(super) fn what(name: &str) -> &'static str {
    let found = super::vector::find(name).and_then(|index| VECTORS.get(index));
    found.map_or("the canary is guarded as a workload is", |vector| {
        vector.what
    })
}

impl Canary {
    /// Tells the canary to open its node. The programs are attached by now.
    #[must_use]
    pub fn begin(
        cage: std::result::Result<Cage, String>,
        context: &Context<'_>,
        interval: Duration,
    ) -> Self {
        let now = Instant::now();
        let (cage, mut state) = match cage {
            Ok(cage) => (Some(cage), State::Waiting),
            Err(why) => (None, State::Failed(why)),
        };
        let (mut orders, mut answers) = (None, None);
        let path = cage.as_ref().map_or("/", Cage::path);
        let outside = Outside::of(context.boundary, path);
        let [v4, ..] = V4;
        let [v6, ..] = V6;
        let older = (outside.v4.unwrap_or(v4), outside.v6.unwrap_or(v6));
        match cage.as_ref().map(Cage::talk) {
            Some(Ok((to, from))) => {
                let (v4, v6) = older;
                // Whether anybody hears it, the answers tell.
                to.send(Order::Guard { v4, v6 }).ok();
                (orders, answers) = (Some(to), Some(from));
            }
            Some(Err(error)) => state = State::Failed(error.to_string()),
            None => {}
        }
        Self {
            cage,
            state,
            orders,
            answers,
            covered: Covered::by(&context.kernel.tiers()),
            older,
            interval,
            next_round: now + PATIENCE,
            next_vector: 0,
            queue: VecDeque::new(),
            running: None,
            quiet: now,
            rows: Vec::new(),
            drills: Vec::new(),
            counts: Counts::default(),
        }
        .at_once_if_failed(now)
    }

    fn at_once_if_failed(mut self, now: Instant) -> Self {
        if matches!(self.state, State::Failed(_)) {
            self.next_round = now;
        }
        self
    }

    /// Waits for an answer or a moment. May be dropped and called again.
    pub async fn wake(&mut self) -> Wake {
        let due = match &self.running {
            Some(running) => running.look,
            None if self.queue.is_empty() || matches!(self.state, State::Waiting) => {
                self.next_round
            }
            None => return Wake::Due,
        };
        let heard = async {
            match &mut self.answers {
                Some(answers) => answers.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = heard => Wake::Heard(answer),
            () = tokio::time::sleep_until(due) => Wake::Due,
        }
    }

    /// To be called with what [`Canary::wake`] gave.
    pub fn woken(&mut self, wake: Wake, context: &Context<'_>) -> Vec<Told> {
        let mut told = Vec::new();
        match wake {
            Wake::Heard(answer) => self.heard(answer, context),
            Wake::Due => {}
        }
        self.look(context, &mut told);
        self.start(context, &mut told);
        told
    }

    fn heard(&mut self, answer: Option<Answer>, context: &Context<'_>) {
        let now = Instant::now();
        match answer {
            Some(Answer::Opened { pid }) => {
                self.state = guarded(pid, context);
                self.next_round = now;
            }
            Some(Answer::NotOpened { why }) => self.fail(why),
            Some(Answer::Tried { outcome }) => {
                if let Some(running) = &mut self.running {
                    running.outcome = Some(outcome);
                    running.look = now + SETTLE;
                }
            }
            None => self.fail("its process has ended".to_owned()),
        }
    }

    fn fail(&mut self, why: String) {
        tracing::error!(why, "the canary is not guarded");
        self.state = State::Failed(why);
        (self.orders, self.answers) = (None, None);
        self.next_round = Instant::now();
        if let Some(running) = &mut self.running {
            running.outcome.get_or_insert(Outcome::Broken {
                why: "the canary ended".to_owned(),
            });
            running.look = Instant::now();
        }
    }

    fn look(&mut self, context: &Context<'_>, told: &mut Vec<Told>) {
        let now = Instant::now();
        let Some(running) = self.running.take_if(|running| running.look <= now) else {
            return;
        };
        let Running {
            vector,
            run,
            before,
            outcome,
            look: _,
            event,
        } = running;
        let Some(outcome) = outcome else {
            self.fail(format!("it did not answer within {PATIENCE:?}"));
            let why = "the canary does not answer".to_owned();
            let judged = judge(vector, &Outcome::Broken { why }, Moved::default());
            return self.note(run, vector.name, &judged, told);
        };
        let mut judged = match self.counted(context) {
            Ok(after) => judge(vector, &outcome, Moved::between(&before, &after)),
            Err(why) => Judged {
                result: Result::Error,
                proof: why,
            },
        };
        if let Some(event) = event {
            judged.proof = format!("{}; {}", judged.proof, seen(&event));
        }
        self.note(run, vector.name, &judged, told);
    }

    fn counted(&self, context: &Context<'_>) -> std::result::Result<GroupCount, String> {
        let State::Guarded(group) = self.state else {
            return Err("the canary is not guarded".to_owned());
        };
        let counts = context.kernel.group_counts();
        let counts =
            counts.map_err(|error| format!("the kernel's counts cannot be read: {error}"))?;
        let found = counts.into_iter().find(|(id, _)| *id == group);
        found
            .map(|(_, count)| count)
            .ok_or_else(|| "the kernel has no counts for the canary's group".to_owned())
    }

    /// Begins what is next, and says at once what need not be tried.
    fn start(&mut self, context: &Context<'_>, told: &mut Vec<Told>) {
        let now = Instant::now();
        if matches!(self.state, State::Waiting) {
            if now < self.next_round {
                return;
            }
            self.fail(format!("it did not answer within {PATIENCE:?}"));
        }
        if self.running.is_none() && self.queue.is_empty() && self.next_round <= now {
            self.next_round = now + self.interval;
            self.round();
        }
        if let State::Failed(why) = &self.state {
            let why = format!("not guarded: {why}");
            return self.give_up(&why, told);
        }
        while self.running.is_none()
            && let Some((index, run)) = self.queue.pop_front()
        {
            let Some(vector) = VECTORS.get(index) else {
                continue;
            };
            if let Err(judged) = self.launch(vector, run, context) {
                self.note(run, vector.name, &judged, told);
            }
        }
        self.finish_drill();
    }

    /// The next few ways out.
    fn round(&mut self) {
        for _ in 0..A_ROUND {
            self.queue.push_back((self.next_vector, Run::Canary));
            self.next_vector = (self.next_vector + 1) % VECTORS.len();
        }
    }

    fn give_up(&mut self, why: &str, told: &mut Vec<Told>) {
        let asked: Vec<Run> = self.queue.drain(..).map(|(_, run)| run).collect();
        let judged = Judged {
            result: Result::Error,
            proof: why.to_owned(),
        };
        for run in [Run::Canary, Run::Drill] {
            if asked.contains(&run) {
                self.note(run, GUARD, &judged, told);
            }
        }
        self.finish_drill();
    }

    fn launch(
        &mut self,
        vector: &'static Vector,
        run: Run,
        context: &Context<'_>,
    ) -> std::result::Result<(), Judged> {
        let not_applicable = |proof: String| Judged {
            result: Result::NotApplicable,
            proof,
        };
        if context.boundary.audit {
            let why = "audit: nothing is refused, so nothing is tried";
            return Err(not_applicable(why.to_owned()));
        }
        if let Some(gap) = self.covered.gap(vector.needs) {
            return Err(not_applicable(gap.to_owned()));
        }
        let path = self.cage.as_ref().map_or("/", Cage::path);
        let outside = Outside::of(context.boundary, path);
        if let Some(gap) = outside.gap(vector, context.boundary, path) {
            return Err(not_applicable(gap));
        }
        let (v4, v6) = (
            outside.v4.unwrap_or(self.older.0),
            outside.v6.unwrap_or(self.older.1),
        );
        let is_older = vector.name.ends_with("_older");
        if is_older && (v4, v6) != self.older {
            let why = "the boundary allows now what these sockets were connected to";
            return Err(not_applicable(why.to_owned()));
        }
        let failed = |proof: String| Judged {
            result: Result::Error,
            proof,
        };
        let before = self.counted(context).map_err(failed)?;
        let order = Order::Try {
            vector: vector.name.to_owned(),
            v4,
            v6,
        };
        if self
            .orders
            .as_ref()
            .is_none_or(|to| to.send(order).is_err())
        {
            return Err(failed("the canary takes no orders".to_owned()));
        }
        let now = Instant::now();
        self.quiet = now + PATIENCE;
        self.running = Some(Running {
            vector,
            run,
            before,
            outcome: None,
            look: now + PATIENCE,
            event: None,
        });
        Ok(())
    }

    fn note(&mut self, run: Run, name: &'static str, judged: &Judged, told: &mut Vec<Told>) {
        let Judged { result, proof } = judged;
        self.quiet = Instant::now() + AFTERLIFE;
        let is_new = self.counts.add(name, *result, proof);
        if run == Run::Drill {
            self.rows.push(DrillRow {
                vector: name.to_owned(),
                what: what(name).to_owned(),
                result: *result,
                proof: proof.clone(),
            });
        }
        if is_new || result.is_failure() {
            let alert = result
                .is_failure()
                .then(|| format!("{} {name}: {result}: {proof}", run.word()));
            told.push(Told {
                body: Body::Canary {
                    run: run.word().to_owned(),
                    vector: name.to_owned(),
                    result: result.word().to_owned(),
                    detail: proof.chars().take(1024).collect(),
                },
                alert,
            });
        }
    }

    /// Tries everything now; `reply` is answered when all is done.
    pub fn drill(&mut self, reply: oneshot::Sender<Reply>) {
        let is_running = !self.drills.is_empty();
        self.drills.push(reply);
        if !is_running {
            self.rows.clear();
            let all = (0..VECTORS.len()).map(|index| (index, Run::Drill));
            self.queue.extend(all);
        }
    }

    fn finish_drill(&mut self) {
        let is_left = self.queue.iter().any(|(_, run)| *run == Run::Drill);
        let is_running = self
            .running
            .as_ref()
            .is_some_and(|one| one.run == Run::Drill);
        if is_left || is_running {
            return;
        }
        let rows = std::mem::take(&mut self.rows);
        for reply in self.drills.drain(..) {
            // The client may have hung up.
            reply.send(Reply::Drill { rows: rows.clone() }).ok();
        }
    }

    /// To be called with every event: whether it is the canary's own doing.
    pub fn saw(&mut self, event: &Event) -> bool {
        let is_ours = self.group() == Some(event.group);
        if !is_ours || self.quiet < Instant::now() {
            return false;
        }
        if let Some(running) = &mut self.running
            && event.kind == EventKind::FLOW
            && event.verdict != Verdict::ALLOW
        {
            running.event.get_or_insert(*event);
        }
        event.kind != EventKind::GUARD && event.kind != EventKind::TAMPER
    }

    /// The group the canary is guarded as.
    #[must_use]
    pub const fn group(&self) -> Option<GroupId> {
        match self.state {
            State::Guarded(group) => Some(group),
            State::Waiting | State::Failed(_) => None,
        }
    }

    /// A new session counts from zero.
    pub fn begin_session(&mut self) {
        self.counts.begin_session();
    }

    /// For the epoch.
    #[must_use]
    pub fn counts(&self) -> evidence::Canary {
        self.counts.of_session(self.group().is_some())
    }

    /// For status and metric.
    #[must_use]
    pub fn info(&self, kernel: &Kernel) -> CanaryInfo {
        let state = match &self.state {
            State::Guarded(_) => "guarded".to_owned(),
            State::Waiting => "not guarded: it has not opened its device node yet".to_owned(),
            State::Failed(why) => format!("not guarded: {why}"),
        };
        let counts = kernel.group_counts().unwrap_or_default();
        let found = counts.into_iter().find(|(id, _)| Some(*id) == self.group());
        CanaryInfo {
            guarded: self.group().is_some(),
            state,
            runs: self.counts.by_result(),
            last_ms: self.counts.last_ms(),
            denied: found.map_or(0, |(_, count)| count.denied),
            vectors: self.counts.vectors(),
        }
    }

    /// Ends the process and removes its cgroup. The group to let go: none where
    /// somebody else is in that cgroup, who stays guarded.
    pub fn end(&mut self) -> Option<GroupId> {
        let group = self.group();
        (self.orders, self.answers) = (None, None);
        self.state = State::Failed("the agent stops".to_owned());
        let is_gone = self.cage.take().is_none_or(Cage::end);
        group.filter(|_| is_gone)
    }
}

/// Where a refusal was made, by the kernel's report.
fn seen(event: &Event) -> String {
    let name = |name: Option<&str>| name.unwrap_or("?").to_ascii_lowercase();
    let (hook, reason) = (name(event.hook.name()), name(event.reason.name()));
    format!("{hook} says {reason}")
}

/// Whether a process is guarded, by the kernel's own word.
fn guarded(pid: u32, context: &Context<'_>) -> State {
    match context.kernel.task(pid) {
        Some(task) if task.group != 0 => State::Guarded(task.group),
        _ => State::Failed(
            "it opened its device node and the kernel does not hold it: the device hook did not run"
                .to_owned(),
        ),
    }
}
