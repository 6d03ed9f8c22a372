//! Interfaces that carry something, and those that do not.

use pagewire_vfio::bind::{
    DeviceName, Interface, Missing, Network, Note, Played, Refusal, Verdict, find,
};

use crate::tree::{NIC, Tree};
use crate::{bound, codes, forced};

fn up() -> Tree {
    let tree = Tree::usual();
    tree.interface("eth1", NIC, true);
    tree
}

#[test]
fn up_without_an_address() {
    assert_eq!(codes(&up()), [""; 0]);
}

#[test]
fn up_with_ipv4() {
    let tree = up();
    tree.ipv4("eth1", [192, 168, 1, 5]);
    assert_eq!(codes(&tree), ["has-address"]);
    let error = bound(&tree).unwrap_err().to_string();
    assert!(
        error.contains("eth1 is up, which has 192.168.1.5"),
        "{error}"
    );
    let bound = forced(&tree).unwrap();
    let [Note::Forced(Refusal::HasAddress { .. })] = bound.notes[..] else {
        panic!("{:?}", bound.notes);
    };
}

#[test]
fn the_addresses_of_others_do_not_count() {
    let tree = up();
    tree.ipv4("eth0", [192, 168, 1, 5]);
    tree.ipv6("eth0", "2001:db8::5");
    tree.route("eth0", [0; 4], [192, 168, 1, 1], 0);
    tree.default_route_v6("eth0");
    assert_eq!(codes(&tree), [""; 0]);
}

#[test]
fn up_with_ipv6() {
    let tree = up();
    tree.ipv6("eth1", "2001:db8::5");
    assert_eq!(codes(&tree), ["has-address"]);
}

#[test]
fn up_with_a_link_local_address_only() {
    // Linux gives it to every interface that is up: nobody asked for it.
    let tree = up();
    tree.ipv6("eth1", "fe80::1234");
    assert_eq!(codes(&tree), [""; 0]);
    let tree = up();
    tree.ipv6("eth1", "fe80::1234");
    let bound = bound(&tree).unwrap();
    assert_eq!(bound.notes, [Note::LinkLocalOnly("eth1".into())]);
}

#[test]
fn the_default_route() {
    let tree = up();
    tree.route("eth1", [0; 4], [192, 168, 1, 1], 0);
    assert_eq!(codes(&tree), ["default-route"]);
    assert!(forced(&tree).unwrap().changed);
    // Two halves are a whole, and who has one of them is needed.
    let tree = up();
    tree.route("eth1", [128, 0, 0, 0], [192, 168, 1, 1], 1);
    assert_eq!(codes(&tree), ["default-route"]);
    let tree = up();
    tree.route("eth1", [192, 0, 0, 0], [192, 168, 1, 1], 2);
    assert_eq!(codes(&tree), ["has-address"]);
}

#[test]
fn the_default_route_of_ipv6() {
    let tree = up();
    tree.default_route_v6("eth1");
    assert_eq!(codes(&tree), ["default-route"]);
    for (destination, prefix, code) in [
        ("2000::", 3, "default-route"),
        ("::", 1, "default-route"),
        ("8000::", 1, "default-route"),
        ("2001:db8::", 32, "has-address"),
        ("2001:db8::7", 128, "has-address"),
    ] {
        let tree = up();
        tree.route_v6("eth1", destination, prefix);
        assert_eq!(codes(&tree), [code], "{destination}/{prefix}");
    }
    // Linux gives these to every interface that is up.
    let tree = up();
    tree.route_v6("eth1", "fe80::", 64);
    tree.route_v6("eth1", "fe80::1234", 128);
    tree.route_v6("eth1", "ff00::", 8);
    assert_eq!(codes(&tree), [""; 0]);
}

#[test]
fn a_route_that_leads_nowhere_is_nobodys() {
    let tree = up();
    let zeros = "0".repeat(32);
    let line =
        format!("{zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 00200200         \n");
    tree.add("proc/net/ipv6_route", &line);
    tree.route("*", [10, 0, 0, 0], [0; 4], 8);
    assert_eq!(codes(&tree), [""; 0]);
}

#[test]
fn down_with_an_address() {
    let tree = Tree::usual();
    tree.ipv6("eth1", "2001:db8::5");
    let bound = bound(&tree).unwrap();
    let [Note::DownWithAddress { addresses, .. }] = &bound.notes[..] else {
        panic!("{:?}", bound.notes);
    };
    assert_eq!(addresses.len(), 1);
}

#[test]
fn below_a_bridge_that_has_the_address() {
    let tree = up();
    tree.above("br0", "eth1");
    tree.above("vlan7", "br0");
    tree.ipv4("vlan7", [10, 0, 0, 5]);
    tree.route("vlan7", [0; 4], [10, 0, 0, 1], 0);
    assert_eq!(codes(&tree), ["has-address", "default-route"]);
    let error = bound(&tree).unwrap_err().to_string();
    assert!(error.contains("eth1 is up below vlan7"), "{error}");
    // Interfaces that sit above each other in a circle are looked at once.
    tree.link("sys/class/net/vlan7/upper_eth1", "nowhere");
    assert_eq!(codes(&tree), ["has-address", "default-route"]);
}

#[test]
fn below_what_has_no_address_itself() {
    // Open vSwitch: the address is br0's, which is not above eth1. The same looks a bridge of
    // virtual machines, but for the name.
    for above in ["ovs-system", "br0", "macvlan0"] {
        let tree = up();
        tree.above(above, "eth1");
        tree.ipv4("br1", [10, 0, 0, 5]);
        tree.route("br1", [0; 4], [10, 0, 0, 1], 0);
        assert_eq!(codes(&tree), ["below-another"]);
        let error = bound(&tree).unwrap_err().to_string();
        assert!(
            error.contains(&format!("eth1 is up below {above}")),
            "{error}"
        );
        assert!(error.contains("--force"), "{error}");
        assert!(forced(&tree).unwrap().changed);
        // Down it carries nothing.
        let tree = Tree::usual();
        tree.above(above, "eth1");
        assert_eq!(codes(&tree), [""; 0]);
    }
}

#[test]
fn an_address_without_a_route() {
    // 32 bits: it needs none, and those of others do not matter, however well they would fit.
    let tree = up();
    tree.ipv4("eth0", [10, 1, 2, 9]);
    tree.local("eth1", [10, 1, 2, 3]);
    assert_eq!(codes(&tree), ["has-address"]);
    let error = bound(&tree).unwrap_err().to_string();
    assert!(error.contains("which has 10.1.2.3 "), "{error}");
}

#[test]
fn an_address_that_is_nobodys() {
    // A copy of another machine's /proc, which does not say whose an address is.
    let tree = up();
    tree.ipv4("eth0", [10, 1, 2, 3]);
    tree.remove("proc/net/ipv4_addresses");
    assert_eq!(codes(&tree), ["may-have-address"]);
    assert!(forced(&tree).unwrap().changed);
}

#[test]
fn two_interfaces_in_one_network() {
    let tree = up();
    tree.ipv4("eth0", [192, 168, 1, 5]);
    tree.route("eth1", [192, 168, 1, 0], [0; 4], 24);
    assert_eq!(codes(&tree), ["has-address"]);
}

#[test]
fn the_lists_of_proc_are_missing_or_odd() {
    let tree = up();
    tree.remove("proc/net/if_inet6");
    tree.remove("proc/net/ipv6_route");
    assert_eq!(codes(&tree), [""; 0], "IPv6 is off");
    let tree = up();
    tree.remove("proc/net/route");
    assert_eq!(codes(&tree), ["network-unknown"]);
    for file in [
        "route",
        "ipv4_addresses",
        "fib_trie",
        "if_inet6",
        "ipv6_route",
    ] {
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let halves = [&b"eth1"[..], b"|-- 10.1.2.\n", b"eth1\t0", b"+\nx"];
        for odd in std::iter::once(&bytes[..]).chain(halves) {
            let tree = up();
            if file == "fib_trie" {
                tree.remove("proc/net/ipv4_addresses");
            }
            tree.file(&format!("proc/net/{file}"), odd);
            assert_eq!(codes(&tree), ["network-unknown"], "{file} {odd:?}");
            assert!(forced(&tree).unwrap().changed);
        }
        // What an interface that is down would carry is no matter.
        let tree = Tree::usual();
        tree.file(&format!("proc/net/{file}"), bytes);
        assert_eq!(codes(&tree), [""; 0], "{file}");
    }
}

#[test]
fn a_nic_of_two_ports_in_one_function() {
    let tree = Tree::usual();
    tree.interface("eth2", NIC, true);
    tree.ipv4("eth2", [192, 168, 1, 5]);
    assert_eq!(codes(&tree), ["has-address"]);
    let error = bound(&tree).unwrap_err().to_string();
    assert!(error.contains("eth2"), "{error}");
}

#[test]
fn an_interface_that_is_in_a_container() {
    let tree = Tree::usual();
    tree.remove("sys/class/net/eth1");
    assert_eq!(codes(&tree), ["interface-elsewhere"]);
    assert!(forced(&tree).unwrap().changed);
    // Drivers for user space have none.
    let tree = Tree::empty();
    tree.nic(NIC, "uio_pci_generic", 7);
    assert_eq!(codes(&tree), [""; 0]);
}

#[test]
fn an_interface_that_does_not_say_whether_it_is_up() {
    let tree = Tree::usual();
    tree.remove(&Tree::of(NIC, "net/eth1/flags"));
    tree.ipv4("eth1", [192, 168, 1, 5]);
    assert_eq!(codes(&tree), ["has-address"]);
}

#[test]
fn devices_are_found_by_their_interface() {
    let tree = Tree::usual();
    tree.device(
        "0000:00:04.0",
        ("0x1af4", "0x1041"),
        "0x020000",
        "virtio-pci",
    );
    tree.interface_below("eth2", "0000:00:04.0", "virtio0/", true);
    tree.above("bond0", "eth2");
    let system = Played::new(tree.path()).unwrap();
    let found = |name: &str| find(&system, &name.parse::<DeviceName>().unwrap());
    assert_eq!(found("eth1"), Ok(NIC.parse().unwrap()));
    assert_eq!(found("eth2"), Ok("0000:00:04.0".parse().unwrap()));
    assert_eq!(found("03:00.0"), Ok(NIC.parse().unwrap()));
    assert!(matches!(found("eth9"), Err(Missing::Interface(_))));
    assert!(matches!(found("0000:09:00.0"), Err(Missing::Address(_))));
    let below = vec!["eth2".into()];
    let interface = "bond0".into();
    assert_eq!(found("bond0"), Err(Missing::NotPci { interface, below }));
}

#[test]
fn an_interface_is_judged_by_its_name_alone() {
    let tree = up();
    tree.ipv4("eth1", [192, 168, 1, 5]);
    tree.above("br0", "eth1");
    tree.default_route_v6("br0");
    tree.interface("eth2", "0000:09:00.0", false);
    let system = Played::new(tree.path()).unwrap();
    let network = Network::read(&system);
    let named = |name: &str| Interface::named(&system, name, &network);
    let codes = |name: &str| -> Vec<_> {
        let verdict = Verdict::of_interface(&named(name).unwrap(), &network);
        verdict.refusals.iter().map(Refusal::code).collect()
    };
    assert_eq!(codes("eth1"), ["has-address", "default-route"]);
    assert_eq!(codes("eth2"), [""; 0], "it is down");
    for nobody in ["eth9", "", "..", "../net/eth1", "eth1/"] {
        assert_eq!(named(nobody), None, "{nobody}");
    }
}
