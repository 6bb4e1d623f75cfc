//! Which character devices are GPUs, and which are ways out past every socket:
//! fixed numbers, and the dynamic ones of `/proc/devices` and `/proc/misc`,
//! which change from boot to boot.
//!
//! Devices that are neither are not its affair: a serial line is not looked at.

use merestone_abi::{Device, DeviceClass};

/// A device number, or a whole major, and what opening it means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeviceRule {
    /// Major number.
    pub major: u32,
    /// Minor number; none for all of them.
    pub minor: Option<u32>,
    /// What opening it means.
    pub class: DeviceClass,
}

impl DeviceRule {
    /// A device the operator named.
    #[must_use]
    pub const fn configured(major: u32, minor: Option<u32>) -> Self {
        Self {
            major,
            minor,
            class: DeviceClass::CONFIGURED,
        }
    }

    pub(super) const fn key(self) -> Device {
        Device {
            major: self.major,
            minor: match self.minor {
                Some(minor) => minor,
                None => Device::ANY_MINOR,
            },
        }
    }
}

/// The major that NVIDIA has from the kernel (Documentation/admin-guide/devices.txt).
const NVIDIA: u32 = 195;
/// `nvidiactl`.
const NVIDIA_CONTROL: u32 = 255;
/// DRM, likewise.
const DRM: u32 = 226;

/// InfiniBand (Documentation/admin-guide/devices.txt): verbs, MAD, CM.
const INFINIBAND: u32 = 231;
/// PPP, likewise.
const PPP: u32 = 108;
/// Miscellaneous devices, likewise; each has a minor of its own.
const MISC: u32 = 10;
/// Fixed minors of misc devices that are ways out (include/linux/miscdevice.h):
/// VFIO, tun, vhost-net and vhost-vsock.
const WAYS_OUT: [(u32, DeviceClass); 4] = [
    (196, DeviceClass::DIRECT),
    (200, DeviceClass::TUNNEL),
    (238, DeviceClass::TUNNEL),
    (241, DeviceClass::TUNNEL),
];

/// What guards or is refused on any host, and what `/proc/devices` and
/// `/proc/misc` add on this one.
pub(super) fn rules(proc_devices: &str, proc_misc: &str) -> Vec<DeviceRule> {
    let all = |major, class| DeviceRule {
        major,
        minor: None,
        class,
    };
    let mut rules = vec![
        all(NVIDIA, DeviceClass::GRAPHICS),
        DeviceRule {
            major: NVIDIA,
            minor: Some(NVIDIA_CONTROL),
            class: DeviceClass::CONTROL,
        },
        // Primary nodes too: a privileged process can render through them.
        all(DRM, DeviceClass::GRAPHICS),
        all(INFINIBAND, DeviceClass::DIRECT),
        all(PPP, DeviceClass::TUNNEL),
    ];
    let misc = misc_devices(proc_misc).filter_map(|(minor, name)| Some((minor, way_out(name)?)));
    rules.extend(
        WAYS_OUT
            .into_iter()
            .chain(misc)
            .map(|(minor, class)| DeviceRule {
                major: MISC,
                minor: Some(minor),
                class,
            }),
    );
    for (major, name) in character_devices(proc_devices) {
        if ![NVIDIA, DRM, MISC].contains(&major)
            && let Some(class) = class_of(name).or_else(|| way_out(name))
        {
            rules.push(all(major, class));
        }
    }
    rules
}

fn class_of(name: &str) -> Option<DeviceClass> {
    match name {
        "nvidia-caps" => Some(DeviceClass::MIG),
        "kfd" | "accel" => Some(DeviceClass::COMPUTE),
        _ if name.starts_with("nvidia") => Some(DeviceClass::COMPUTE),
        _ => None,
    }
}

/// Devices that send, or have others send, past every socket.
fn way_out(name: &str) -> Option<DeviceClass> {
    match name {
        // drivers/infiniband, drivers/vfio, drivers/uio
        "infiniband_verbs" | "infiniband_mad" | "infiniband_cm" | "rdma_cm" | "vfio" | "uio"
        | "vfio-dev" => Some(DeviceClass::DIRECT),
        // drivers/net, drivers/vhost, drivers/vdpa, drivers/nvme: the last has
        // the kernel connect to a target that the writer names.
        "tun" | "macvtap" | "ipvtap" | "ppp" | "vhost-net" | "vhost-vsock" | "vhost-vdpa"
        | "vduse" | "nvme-fabrics" => Some(DeviceClass::TUNNEL),
        _ => None,
    }
}

/// Minors and names of `/proc/misc`.
fn misc_devices(proc_misc: &str) -> impl Iterator<Item = (u32, &str)> {
    proc_misc.lines().filter_map(|line| {
        let (minor, name) = line.trim().split_once(' ')?;
        Some((minor.parse().ok()?, name.trim()))
    })
}

fn character_devices(proc_devices: &str) -> impl Iterator<Item = (u32, &str)> {
    proc_devices
        .lines()
        .skip_while(|line| !line.starts_with("Character devices:"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| {
            let (major, name) = line.trim().split_once(' ')?;
            Some((major.parse().ok()?, name.trim()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_majors_are_read_and_block_devices_are_not() {
        let text = "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n234 nvidia-caps\n\
                    235 nvidia-uvm\n240 kfd\n241 nvme\n\nBlock devices:\n235 nvidia-uvm\n";
        let rules = rules(text, "");
        let class = |major| {
            let found = rules.iter().find(|r| r.major == major && r.minor.is_none());
            found.map(|rule| rule.class)
        };
        assert_eq!(class(195), Some(DeviceClass::GRAPHICS));
        assert_eq!(class(234), Some(DeviceClass::MIG));
        assert_eq!(class(235), Some(DeviceClass::COMPUTE));
        assert_eq!(class(240), Some(DeviceClass::COMPUTE));
        assert_eq!(class(241), None);
        assert_eq!(rules.iter().filter(|rule| rule.major == 235).count(), 1);
    }

    #[test]
    fn rdma_and_tunnels_are_ways_out_by_fixed_and_by_dynamic_numbers_b13_b44() {
        let devices = "Character devices:\n 10 misc\n231 infiniband_verbs\n\
                       243 vfio\n244 infiniband_verbs\n";
        let rules = rules(devices, " 57 rdma_cm\n200 tun\n 58 fuse\n");
        let class = |major, minor| {
            let found = rules.iter().find(|r| r.major == major && r.minor == minor);
            found.map(|rule| rule.class)
        };
        assert_eq!(class(231, None), Some(DeviceClass::DIRECT));
        assert_eq!(class(243, None), Some(DeviceClass::DIRECT));
        assert_eq!(class(244, None), Some(DeviceClass::DIRECT));
        assert_eq!(class(10, Some(57)), Some(DeviceClass::DIRECT));
        assert_eq!(class(10, Some(200)), Some(DeviceClass::TUNNEL));
        assert_eq!(class(10, Some(241)), Some(DeviceClass::TUNNEL));
        assert_eq!(class(10, Some(58)), None);
        assert_eq!(class(10, None), None);
    }

    #[test]
    fn the_control_node_alone_guards_nothing() {
        let control = rules("", "")
            .into_iter()
            .find(|rule| rule.minor == Some(NVIDIA_CONTROL));
        assert_eq!(control.map(|rule| rule.class), Some(DeviceClass::CONTROL));
    }
}
