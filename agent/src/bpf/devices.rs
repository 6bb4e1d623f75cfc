//! Which character devices are GPUs: fixed majors, and the dynamic ones of
//! `/proc/devices`, whose numbers change from boot to boot.

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

/// What guards on any host, and what `/proc/devices` adds on this one.
pub(super) fn rules(proc_devices: &str) -> Vec<DeviceRule> {
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
    ];
    for (major, name) in character_devices(proc_devices) {
        if major != NVIDIA
            && major != DRM
            && let Some(class) = class_of(name)
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
        let rules = rules(text);
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
    fn the_control_node_alone_guards_nothing() {
        let control = rules("")
            .into_iter()
            .find(|rule| rule.minor == Some(NVIDIA_CONTROL));
        assert_eq!(control.map(|rule| rule.class), Some(DeviceClass::CONTROL));
    }
}
