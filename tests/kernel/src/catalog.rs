//! Every way out that is tried, as a table: what it does, which case of the
//! bypass catalogue it is (B-numbers), and what must come of it.
//!
//! A row claims nothing by itself: the control run must show that the way is
//! open when nobody is guarded.

use crate::probe::{
    Probe, asked, connectx, deputy, families, headers, icmp, lineage, links, made, nodes, older,
    options, passing, ring, tcp, udp,
};
use std::io;

/// What a vector does in the probe; the flag is "IPv6".
pub type Run = fn(&Probe, bool) -> io::Result<()>;

/// What must come of a vector in a guarded process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// The call says EPERM at once, and nothing is on the wire.
    Refused,
    /// Nothing is on the wire, whatever the call says.
    Held,
    /// EPERM at once where the LSM tier is active; else the agent's list of
    /// uncovered ways out has an entry with this word.
    Family(&'static str),
    /// Nothing on the wire, or an uncovered entry with this word.
    Declared(&'static str),
    /// As `Family`, for the list of families that can be created.
    Families(&'static str),
}

/// How a leak shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Oracle {
    /// The marker, or any packet to the case's own denied address.
    Wire,
    /// The marker, or data to the address; a handshake alone is none.
    Payload,
    /// Only packets to the address: the marker may go to the allowed host.
    Address,
    /// Not on the wire: the answer of the call itself.
    Answer,
}

/// What of a vector holds where only a process tree is guarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tree {
    /// The same.
    Same,
    /// It may get out if the agent's uncovered list has an entry with this word.
    Declared(&'static str),
    /// It is somebody outside the tree: there is nothing to hold.
    Outside,
}

/// One way out.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "columns of a table, each on its own"
)]
pub struct Vector {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, as the end of "a guarded process …".
    pub says: &'static str,
    /// Cases of the bypass catalogue.
    pub cases: &'static str,
    /// Which family.
    pub v6: bool,
    /// What the probe does.
    pub run: Run,
    /// What must come of it.
    pub expect: Expect,
    /// How a leak shows.
    pub oracle: Oracle,
    /// Hooks of which one must have reported it; empty means any.
    pub hooks: &'static [&'static str],
    /// The event may name another destination than the denied one.
    pub elsewhere: bool,
    /// What of it holds where only a process tree is guarded.
    pub tree: Tree,
    /// Kernels may be built without it.
    pub optional: bool,
    /// Leaves its cgroup, which must be reported as well.
    pub leaves: bool,
    /// How often it is tried in one go.
    pub repeats: u32,
}

const CONNECT: &[&str] = &["connect4", "connect6", "lsm_connect"];
const FAST_OPEN: &[&str] = &["connect4", "connect6", "lsm_connect", "lsm_sendmsg"];
const SEND: &[&str] = &["sendmsg4", "sendmsg6", "lsm_sendmsg"];
const PACKET: &[&str] = &["egress", "lsm_sendmsg"];
const REPLY: &[&str] = &["egress", "lsm_sendmsg", "lsm_connect"];
const FRAME: &[&str] = &["tcx", "lsm_create"];
const OPTION: &[&str] = &["setsockopt"];
const NODE: &[&str] = &["device", "lsm_open"];
const RAW: &[&str] = &[
    "egress",
    "sock_create",
    "lsm_create",
    "lsm_connect",
    "lsm_sendmsg",
    "connect4",
    "connect6",
];

const fn v(
    name: &'static str,
    says: &'static str,
    cases: &'static str,
    v6: bool,
    run: Run,
) -> Vector {
    Vector {
        name,
        says,
        cases,
        v6,
        run,
        expect: Expect::Refused,
        oracle: Oracle::Wire,
        hooks: &[],
        elsewhere: false,
        tree: Tree::Same,
        optional: false,
        leaves: false,
        repeats: 1,
    }
}

impl Vector {
    const fn by(mut self, hooks: &'static [&'static str]) -> Self {
        self.hooks = hooks;
        self
    }
    const fn held(mut self) -> Self {
        self.expect = Expect::Held;
        self
    }
    const fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }
    const fn judged_by(mut self, oracle: Oracle) -> Self {
        self.oracle = oracle;
        self
    }
    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
    const fn in_trees(mut self, tree: Tree) -> Self {
        self.tree = tree;
        self
    }
    const fn elsewhere(mut self) -> Self {
        self.elsewhere = true;
        self
    }
    const fn leaves(mut self) -> Self {
        self.leaves = true;
        self
    }
    const fn times(mut self, count: u32) -> Self {
        self.repeats = count;
        self
    }
}

/// The vector of that name.
pub fn find(name: &str) -> Option<&'static Vector> {
    VECTORS.iter().find(|vector| vector.name == name)
}

/// All of them; one line each, so that the table reads as one.
#[rustfmt::skip]
pub const VECTORS: &[Vector] = &[
    v("tcp-connect-v4", "cannot connect a stream", "B26", false, tcp::connect).by(CONNECT),
    v("tcp-connect-v6", "cannot connect a stream", "B26", true, tcp::connect).by(CONNECT),
    v("tcp-connect-mapped", "cannot connect to ::ffff:a.b.c.d", "B20", false, tcp::connect_mapped).by(CONNECT),
    v("tcp-rewritten", "cannot have another program send its connect elsewhere", "B39", false, made::load_balanced).held().in_trees(Tree::Outside),
    v("tcp-fastopen-v4", "cannot connect by MSG_FASTOPEN", "B01", false, tcp::fastopen).by(FAST_OPEN),
    v("tcp-fastopen-v6", "cannot connect by MSG_FASTOPEN", "B01", true, tcp::fastopen).by(FAST_OPEN),
    v("tcp-fastopen-connect-v4", "cannot put the SYN off to the first write", "B01", false, tcp::fastopen_connect).by(FAST_OPEN),
    v("tcp-fastopen-connect-v6", "cannot put the SYN off to the first write", "B01", true, tcp::fastopen_connect).by(FAST_OPEN),
    v("tcp-fastopen-cookie", "cannot put data in a SYN by a cookie from before", "B01", false, older::fastopen_cookie).by(FAST_OPEN),
    v("tcp-repair", "cannot be connected by decree", "B01 B33", false, older::repaired).by(CONNECT),
    v("mptcp-connect-v4", "cannot connect by Multipath TCP", "B03", false, tcp::mptcp).by(CONNECT).optional(),
    v("mptcp-connect-v6", "cannot connect by Multipath TCP", "B03", true, tcp::mptcp).by(CONNECT).optional(),
    v("mptcp-fastopen-v4", "cannot fast-open by Multipath TCP", "B02", false, tcp::mptcp_fastopen).by(FAST_OPEN).optional(),
    v("mptcp-fastopen-v6", "cannot fast-open by Multipath TCP", "B02", true, tcp::mptcp_fastopen).by(FAST_OPEN).optional(),
    v("tcp-dns-v4", "cannot ask a resolver outside over TCP", "B45", false, tcp::dns).by(CONNECT),
    v("tcp-dns-v6", "cannot ask a resolver outside over TCP", "B45", true, tcp::dns).by(CONNECT),
    v("tcp-older-v4", "cannot write to a connection older than the GPU", "B33", false, tcp::preopened).by(PACKET).held(),
    v("tcp-older-v6", "cannot write to a connection older than the GPU", "B33", true, tcp::preopened).by(PACKET).held(),
    v("tcp-older-sendfile", "cannot sendfile to a connection older than the GPU", "B33", false, tcp::preopened_sendfile).by(PACKET).held(),
    v("tcp-older-splice", "cannot splice to a connection older than the GPU", "B33", true, tcp::preopened_splice).by(PACKET).held(),
    v("tcp-older-zero-copy", "cannot send pages to a connection older than the GPU", "B33", false, older::zero_copy).by(PACKET).held(),
    v("tcp-older-urgent", "cannot send urgent data to a connection older than the GPU", "B33", true, older::urgent).by(PACKET).held(),
    v("tcp-older-half-closed", "cannot write to an older connection closed the other way", "B33", false, older::half_closed).by(PACKET).held(),
    v("tcp-older-tls", "cannot have the kernel encrypt for an older connection", "B33", true, older::tls).by(PACKET).held().optional(),
    v("mptcp-older-v4", "cannot write to an older Multipath TCP connection", "B03 B33", false, older::mptcp).by(PACKET).held().optional().in_trees(Tree::Declared("MPTCP")),
    v("mptcp-older-v6", "cannot write to an older Multipath TCP connection", "B03 B33", true, older::mptcp).by(PACKET).held().optional().in_trees(Tree::Declared("MPTCP")),
    v("tcp-reply-v4", "cannot reply on an inbound connection", "B35", false, tcp::reply_accepted).by(PACKET).held(),
    v("tcp-reply-v6", "cannot reply on an inbound connection", "B35", true, tcp::reply_accepted).by(PACKET).held(),
    v("tcp-reply-later-v4", "cannot be connected to from outside", "B35", false, tcp::reply_later).by(REPLY).held(),
    v("tcp-reply-later-v6", "cannot be connected to from outside", "B35", true, tcp::reply_later).by(REPLY).expect(Expect::Declared("SYN-ACK")),
    v("sctp-connect-v4", "cannot connect by SCTP", "B04", false, tcp::sctp).held().optional(),
    v("smc-connect-v4", "cannot connect by SMC under an IP socket", "B15", false, tcp::smc).held().optional(),
    v("udp-sendto-v4", "cannot send a datagram", "B05", false, udp::unconnected).by(SEND),
    v("udp-sendto-v6", "cannot send a datagram", "B05", true, udp::unconnected).by(SEND),
    v("udp-sendto-mapped", "cannot send to ::ffff:a.b.c.d", "B05 B20", false, udp::unconnected_mapped).by(SEND),
    v("udp-connect-v4", "cannot connect a datagram socket", "B05", false, udp::connected).by(CONNECT),
    v("udp-connect-v6", "cannot connect a datagram socket", "B05", true, udp::connected).by(CONNECT),
    v("udp-connect-mapped", "cannot connect a datagram socket to ::ffff:a.b.c.d", "B20", false, udp::connected_mapped).by(CONNECT),
    v("udp-older-v4", "cannot send on a datagram socket older than the GPU", "B29", false, udp::older).by(PACKET),
    v("udp-older-v6", "cannot send on a datagram socket older than the GPU", "B29", true, udp::older).by(PACKET),
    v("udp-older-fragments-v4", "cannot send fragments on an older socket", "B25 B29", false, udp::older_fragmented).by(PACKET),
    v("udp-older-fragments-v6", "cannot send fragments on an older socket", "B25 B29", true, udp::older_fragmented).by(PACKET),
    v("udp-fragments-v4", "cannot send fragments", "B25", false, udp::fragmented).by(SEND),
    v("udp-fragments-v6", "cannot send fragments", "B25", true, udp::fragmented).by(SEND),
    v("udp-other-address-v4", "cannot connect inside and send outside", "B06", false, udp::other_address).by(SEND),
    v("udp-other-address-v6", "cannot connect inside and send outside", "B06", true, udp::other_address).by(SEND),
    v("udp-sendmsg-v4", "cannot sendmsg", "B05", false, udp::message).by(SEND),
    v("udp-sendmsg-v6", "cannot sendmsg", "B05", true, udp::message).by(SEND),
    v("udp-sendmmsg-v4", "cannot sendmmsg", "B05", false, udp::messages).by(SEND),
    v("udp-sendmmsg-v6", "cannot sendmmsg", "B05", true, udp::messages).by(SEND),
    v("udp-more-v4", "cannot cork and write", "B05", false, udp::more).by(SEND),
    v("udp-more-v6", "cannot cork and write", "B05", true, udp::more).by(SEND),
    v("udp-more-older-v4", "cannot write to what was corked before the GPU", "B05 B29", false, udp::more_older).by(PACKET),
    v("udp-more-older-v6", "cannot write to what was corked before the GPU", "B05 B29", true, udp::more_older).by(PACKET),
    v("udp-inet-on-v6", "cannot send to an IPv4 address as it is from an IPv6 socket", "B20", false, options::inet_on_v6).by(SEND),
    v("udp-no-family", "cannot send to an address without a family", "B05", false, options::no_family).by(SEND),
    v("udp-uncorked-v4", "cannot take the cork out of an older datagram", "B05 B29", false, options::uncorked).by(PACKET).held(),
    v("udp-uncorked-v6", "cannot take the cork out of an older datagram", "B05 B29", true, options::uncorked).by(PACKET).held(),
    v("udp-segments-v4", "cannot have one write cut into datagrams", "B29", false, options::segmented).by(PACKET),
    v("udp-segments-v6", "cannot have one write cut into datagrams", "B29", true, options::segmented).by(PACKET),
    v("udp-zero-copy-v4", "cannot send pages on an older datagram socket", "B29", false, options::zero_copy).by(PACKET),
    v("udp-zero-copy-v6", "cannot send pages on an older datagram socket", "B29", true, options::zero_copy).by(PACKET),
    v("udp-packet-info-v4", "cannot choose source and device of a datagram", "B44", false, options::packet_info).by(SEND),
    v("udp-packet-info-v6", "cannot choose source and device of a datagram", "B44", true, options::packet_info).by(SEND),
    v("udp-bound-device-v4", "cannot send past the routes", "B44", false, options::bound_to_device).by(SEND),
    v("udp-bound-device-v6", "cannot send past the routes", "B44", true, options::bound_to_device).by(SEND),
    v("udp-transparent-v4", "cannot send from another host's address", "B09", false, options::transparent).by(SEND),
    v("udp-transparent-v6", "cannot send from another host's address", "B09", true, options::transparent).by(SEND),
    v("udp-hop-by-hop", "cannot hide behind hop-by-hop options", "B24", true, options::hop_by_hop).by(PACKET),
    v("udp-destination-options", "cannot hide behind destination options", "B24", true, options::destination_options).by(PACKET),
    v("udp-marked-v4", "cannot send with every mark set", "B43", false, udp::marked).by(PACKET),
    v("udp-marked-v6", "cannot send with every mark set", "B43", true, udp::marked).by(PACKET),
    v("udp-flipped", "cannot race the check with the address", "B17", false, udp::flipped).held().judged_by(Oracle::Address).times(20_000),
    v("udp-multicast-v4", "cannot send multicast", "B27", false, udp::multicast).elsewhere(),
    v("udp-multicast-v6", "cannot send multicast", "B27", true, udp::multicast).elsewhere(),
    v("udp-broadcast", "cannot broadcast", "B27", false, udp::broadcast).elsewhere(),
    v("udp-nat64", "cannot send to 64:ff9b::a.b.c.d", "B21", true, udp::nat64).elsewhere(),
    v("udp-6to4", "cannot send to 2002:a.b.c.d::", "B21", true, udp::six_to_four).elsewhere(),
    v("udp-dns-v4", "cannot ask a resolver outside", "B47", false, udp::dns).by(SEND),
    v("udp-dns-v6", "cannot ask a resolver outside", "B47", true, udp::dns).by(SEND),
    v("udplite-sendto-v4", "cannot send by UDP-Lite", "B05", false, udp::lite).held().optional(),
    v("udplite-sendto-v6", "cannot send by UDP-Lite", "B05", true, udp::lite).held().optional(),
    v("ping-sendto-v4", "cannot send through a ping socket", "B07 B08", false, icmp::ping).by(RAW).held(),
    v("ping-sendto-v6", "cannot send through a ping socket", "B07 B08", true, icmp::ping).by(RAW).held(),
    v("ping-connect-v4", "cannot connect a ping socket", "B07", false, icmp::ping_connected).by(RAW).held(),
    v("ping-connect-v6", "cannot connect a ping socket", "B07", true, icmp::ping_connected).by(RAW).held(),
    v("raw-icmp-v4", "cannot send raw ICMP", "B09", false, icmp::raw).by(RAW).held(),
    v("raw-icmp-v6", "cannot send raw ICMP", "B09", true, icmp::raw).by(RAW).held(),
    v("raw-icmp-connect-v4", "cannot connect a raw ICMP socket", "B09", false, icmp::raw_connected).by(RAW).held(),
    v("raw-icmp-connect-v6", "cannot connect a raw ICMP socket", "B09", true, icmp::raw_connected).by(RAW).held(),
    v("raw-icmp-older-v4", "cannot send raw ICMP on an older socket", "B09 B29", false, icmp::raw_older).by(RAW).held(),
    v("raw-icmp-older-v6", "cannot send raw ICMP on an older socket", "B09 B29", true, icmp::raw_older).by(RAW).held(),
    v("raw-protocol-v4", "cannot send an unknown protocol", "B09", false, icmp::experiment).by(RAW).held(),
    v("raw-protocol-v6", "cannot send an unknown protocol", "B09", true, icmp::experiment).by(RAW).held(),
    v("raw-hdrincl-v4", "cannot send under a header of its own", "B09", false, icmp::own_header).by(RAW).held(),
    v("raw-hdrincl-v6", "cannot send under a header of its own", "B09", true, icmp::own_header).by(RAW).held(),
    v("raw-spoofed-v4", "cannot send from an address not its own", "B09", false, icmp::spoofed).by(RAW).held(),
    v("raw-spoofed-v6", "cannot send from an address not its own", "B09", true, icmp::spoofed).by(RAW).held(),
    v("raw-two-faced", "cannot name one host in the call and another in the header", "B09", false, icmp::two_faced).by(RAW).held(),
    v("raw-later-fragment", "cannot send a fragment that is not the first", "B25", false, icmp::later_fragment).by(RAW).held(),
    v("uring-tcp-v4", "cannot connect by io_uring", "B16", false, ring::tcp_inline).by(CONNECT).optional(),
    v("uring-tcp-v6", "cannot connect by io_uring", "B16", true, ring::tcp_inline).by(CONNECT).optional(),
    v("uring-tcp-async", "cannot connect by io_uring's workers", "B16", false, ring::tcp_async).by(CONNECT).optional(),
    v("uring-tcp-sqpoll", "cannot connect by io_uring's polling thread", "B16", true, ring::tcp_poll).by(CONNECT).optional(),
    v("uring-udp-v4", "cannot send by io_uring", "B16", false, ring::udp_inline).by(SEND).optional(),
    v("uring-udp-v6", "cannot send by io_uring", "B16", true, ring::udp_inline).by(SEND).optional(),
    v("uring-udp-async", "cannot send by io_uring's workers", "B16", true, ring::udp_async).by(SEND).optional(),
    v("uring-udp-sqpoll", "cannot send by io_uring's polling thread", "B16", false, ring::udp_poll).by(SEND).optional(),
    v("uring-zero-copy", "cannot SEND_ZC on an older socket", "B16 B29", false, ring::zero_copy).by(PACKET).optional(),
    v("uring-sendmsg-v4", "cannot sendmsg by io_uring", "B16", false, ring::message).by(SEND).optional(),
    v("uring-sendmsg-v6", "cannot sendmsg by io_uring", "B16", true, ring::message).by(SEND).optional(),
    v("uring-older-async", "cannot write to an older connection by io_uring's workers", "B16 B33", false, ring::older_async).by(PACKET).held().optional(),
    v("uring-older-sqpoll", "cannot write to an older connection by io_uring's polling thread", "B16 B33", true, ring::older_poll).by(PACKET).held().optional(),
    v("uring-registered", "cannot send on a socket registered in a ring from outside", "B16 B61", false, ring::registered).expect(Expect::Declared("sockets passed")).optional(),
    v("uring-shared-sqpoll", "cannot have another process's polling thread send", "B16 B61", true, ring::shared_poll).expect(Expect::Declared("memory shared")).optional(),
    v("srh-through-denied", "cannot route through a denied segment", "B22", true, headers::through_denied).elsewhere(),
    v("srh-through-allowed", "cannot route to the denied host through an allowed segment", "B22", true, headers::through_allowed).elsewhere(),
    v("lsrr-once", "cannot source-route one datagram through the denied host", "B23", false, headers::once_through_denied).elsewhere(),
    v("lsrr-through-denied", "cannot source-route through the denied host", "B23", false, headers::through_denied).elsewhere(),
    v("lsrr-through-allowed", "cannot source-route to the denied host", "B23", false, headers::through_allowed).elsewhere(),
    v("fork-after", "has no child that can send", "B32", false, lineage::child).by(SEND),
    v("fork-orphan", "has no orphaned grandchild that can send", "B32", true, lineage::orphan).by(SEND),
    v("fork-before", "has no older child that can send", "B32", false, lineage::older_child).by(SEND).in_trees(Tree::Declared("forked before")),
    v("fork-sibling", "has no sibling in its cgroup that can send", "B32", true, lineage::sibling).by(SEND).in_trees(Tree::Outside),
    v("fork-parent", "has no parent in its cgroup that can send", "B32", false, lineage::parent).by(SEND).in_trees(Tree::Outside),
    v("clone-parent", "has no CLONE_PARENT child that can send", "B32 B36", false, lineage::clone_parent).by(SEND),
    v("exec-after", "cannot send after execve", "B34", false, lineage::executed).by(SEND),
    v("thread", "has no thread that can send", "B34", true, lineage::thread).by(SEND),
    v("unprivileged", "cannot send as nobody", "B34", false, lineage::unprivileged).by(SEND),
    v("cgroup-left", "cannot leave its cgroup and send", "B36", false, lineage::left_cgroup).leaves(),
    v("cgroup-left-child", "has no child that leaves the cgroup and sends", "B36", true, lineage::child_left_cgroup).leaves(),
    v("cgroup-born-elsewhere", "has no child born in another cgroup that sends", "B36", false, lineage::born_elsewhere),
    v("netns-entered", "cannot send from another network namespace", "B59 B41", false, lineage::other_network).by(SEND),
    v("netns-helper", "cannot send from a namespace that a helper outside empties", "B59", false, made::helper_outside).by(SEND).optional(),
    v("deputy-unix", "cannot have a daemon on a Unix socket send", "B49 B48", false, deputy::unix).expect(Expect::Declared("deputies")),
    v("deputy-unix-older", "cannot ask a daemon by a connection older than the GPU", "B49 B70", false, deputy::older_unix).expect(Expect::Declared("deputies")),
    v("deputy-loopback", "cannot have a proxy on loopback send", "B50", true, deputy::loopback).expect(Expect::Declared("deputies")),
    v("deputy-pipe", "cannot have a process outside send what it wrote to a pipe", "B32", false, deputy::pipe).expect(Expect::Declared("memory shared")),
    v("igmp-join", "cannot say a group's address by joining it", "B62", false, made::joined).by(OPTION),
    v("mld-join", "cannot say a group's address by joining it", "B62", true, made::joined).by(OPTION),
    v("group-join-v4", "cannot say a group's address by the option of both families", "B62", false, made::joined_alike).by(OPTION),
    v("group-join-v6", "cannot say a group's address by the option of both families", "B62", true, made::joined_alike).by(OPTION),
    v("uring-join", "cannot say a group's address by io_uring's own setsockopt", "B16 B62", false, made::joined_by_ring).by(OPTION).optional(),
    v("intruded", "cannot write into a process outside and have it send", "B65", false, asked::intruded).expect(Expect::Declared("ptrace")),
    v("typed", "cannot type into a terminal that a process outside reads", "B71", false, asked::typed).expect(Expect::Declared("TIOCSTI")).optional(),
    v("xdp-injected", "cannot have the kernel forward a frame it takes for another host's", "B66", false, asked::injected).expect(Expect::Declared("gives the kernel")).optional(),
    v("core-pattern", "cannot name a program for the kernel to run", "B67", false, asked::core_pattern).by(&["sysctl"]).judged_by(Oracle::Answer),
    v("sysfs-setting", "cannot write a setting of the kernel's in sysfs", "B67", false, asked::sysfs).expect(Expect::Declared("gives the kernel")).by(&["lsm_open"]).judged_by(Oracle::Answer),
    v("key-upcall", "cannot have the kernel run a program to make a key", "B68", false, asked::key).expect(Expect::Declared("gives the kernel")).judged_by(Oracle::Answer).optional(),
    v("nfs-mount", "cannot have the kernel connect to a file server", "B69 B40", false, asked::mounted).expect(Expect::Declared("mounts of them")).optional(),
    v("tun-older", "cannot write to a tunnel device older than the GPU", "B40 B44", false, families::older_tunnel).expect(Expect::Declared("tunnel devices")).optional(),
    v("tunnel-ipip", "cannot have the kernel wrap what it sends inside", "B40 B63", false, made::ipip).expect(Expect::Declared("below IP")).optional(),
    v("tunnel-gre", "cannot have the kernel wrap what it sends inside", "B40 B63", false, made::gre).expect(Expect::Declared("below IP")).optional(),
    v("tunnel-vxlan", "cannot have the kernel wrap what it sends inside", "B40 B63", false, made::vxlan).expect(Expect::Declared("below IP")).optional(),
    v("tunnel-esp", "cannot have the kernel transform what it sends inside", "B40 B63", false, made::transform).expect(Expect::Declared("below IP")).optional(),
    v("tc-rewritten", "cannot have traffic control readdress what it sends inside", "B64", false, made::rewritten).expect(Expect::Declared("below IP")).optional(),
    v("passed-udp", "cannot send on a connected socket that was passed to it", "B30", false, passing::udp).expect(Expect::Declared("sockets passed")),
    v("passed-udp-unconnected", "cannot send on an unconnected socket that was passed to it", "B30", true, passing::udp_unconnected).expect(Expect::Declared("sockets passed")),
    v("passed-tcp", "cannot send on a connection that was passed to it", "B30", true, passing::stream).expect(Expect::Declared("sockets passed")),
    v("fetched-udp", "cannot send on a socket fetched by pidfd_getfd", "B30", false, passing::fetched).expect(Expect::Declared("sockets passed")),
    v("passed-listener", "cannot reply through a listener from before it came into its cgroup", "B29 B30 B35", true, passing::listener).expect(Expect::Declared("sockets passed")).judged_by(Oracle::Payload),
    v("moved-udp", "cannot send on a connected socket from before it came into its cgroup", "B29", false, passing::moved).expect(Expect::Declared("sockets passed")),
    v("moved-udp-unconnected", "cannot send on a socket from before it came into its cgroup", "B29", true, passing::moved_unconnected).expect(Expect::Declared("sockets passed")),
    v("moved-tcp", "cannot write to a connection from before it came into its cgroup", "B29", false, passing::moved_stream).expect(Expect::Declared("sockets passed")),
    v("tun-inject", "cannot have the kernel forward what it writes to a tunnel device", "B40 B44", false, families::tunnel).expect(Expect::Declared("tunnel")).optional(),
    v("packet-frame", "cannot send frames", "B10", false, families::frames).expect(Expect::Family("AF_PACKET frames")),
    v("packet-cooked", "cannot send cooked packets", "B10", true, families::cooked).expect(Expect::Family("AF_PACKET frames")),
    v("packet-qdisc-bypass", "cannot send frames past the queueing discipline", "B11", false, families::bypass).expect(Expect::Family("AF_PACKET frames")),
    v("packet-older", "cannot send frames on an older packet socket", "B10 B29", true, families::older_frames).expect(Expect::Declared("AF_PACKET frames")),
    v("packet-ethertype", "cannot send frames that are not IP", "B28", false, families::ethertype).expect(Expect::Family("AF_PACKET frames")),
    v("packet-tagged", "cannot send frames under VLAN tags", "B28", false, families::tagged).expect(Expect::Family("AF_PACKET frames")),
    v("xdp-socket", "cannot set up an AF_XDP socket", "B12", false, families::xdp).by(&["setsockopt", "lsm_create"]).judged_by(Oracle::Answer).optional(),
    v("vsock-socket", "cannot make a vsock socket", "B14", false, families::vsock).expect(Expect::Family("vsock")).judged_by(Oracle::Answer).optional(),
    v("sctp-connectx-v4", "cannot connect by SCTP's own option", "B04", false, connectx::connectx).held().optional(),
    v("sctp-connectx-v6", "cannot connect by SCTP's own option", "B04", true, connectx::connectx).held().optional(),
    v("rdma-node", "cannot open an RDMA device", "B13", false, nodes::rdma).by(NODE).judged_by(Oracle::Answer),
    v("tun-node", "cannot open a tunnel device by a node of its own", "B44", false, nodes::tun).by(NODE).judged_by(Oracle::Answer),
    v("vhost-node", "cannot open a virtual machine's vsock", "B14", false, nodes::vhost).by(NODE).judged_by(Oracle::Answer),
    v("link-second", "cannot send frames through a second link", "B10 B44", false, links::second).by(FRAME).held(),
    v("link-later", "cannot send frames through a link that appears later", "B10 B44", false, links::later).by(FRAME).held(),
    v("netns-later", "cannot send frames from a network namespace of its own", "B10 B59", false, links::namespace).by(FRAME).held(),
    v("families", "can make sockets of a few families only", "B15", false, families::all).expect(Expect::Families("famil")).judged_by(Oracle::Answer),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vector_has_its_own_name_and_cites_a_case() {
        let mut names: Vec<_> = VECTORS.iter().map(|vector| vector.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), VECTORS.len());
        for vector in VECTORS {
            assert!(vector.cases.starts_with('B'), "{}", vector.name);
        }
        // A case's number is the last byte of its addresses.
        assert!(VECTORS.len() < 200);
    }
}
