//! What the agent left on the bpf file system, held by its own descriptors.
//!
//! Links and maps are pinned so that they outlive the agent, and held open so
//! that removing a pin, or unmounting the file system, detaches nothing while
//! the agent lives. Each look says what is no longer as it was left, and puts
//! it back. It never takes an object that it finds in a pin's place for its own.

use super::hooks::{HookKind, TierKind};
use super::{Finding, KernelError, host, sys};
use merestone_abi::{Attempt, Event, maps};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A pinned map or link.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    shown: String,
    object: OwnedFd,
    /// The kernel's number of the map or link.
    id: u32,
    /// Inode number of the pin.
    ino: u64,
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    hook: &'static HookKind,
    program: OwnedFd,
    program_id: u32,
    /// The hook of the cgroup, for a link to one.
    attach_type: Option<u32>,
}

/// Everything pinned.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    /// Where the bpf file system is mounted.
    mount_point: PathBuf,
    cgroup: File,
    kept: Vec<Kept>,
}

/// A hook that is attached: its kind, its program's descriptor and number.
pub(super) type Attached = (&'static HookKind, OwnedFd, u32);

impl Pins {
    /// Opens what has just been pinned.
    pub(super) fn hold(
        directory: &Path,
        cgroup: File,
        attached: Vec<Attached>,
    ) -> Result<Self, KernelError> {
        let mut kept = Vec::new();
        for name in maps::PINNED {
            kept.push(Kept::open(
                directory.join(name),
                format!("map {name}"),
                None,
            )?);
        }
        for (hook, program, program_id) in attached {
            if hook.tier == TierKind::Link {
                continue; // many links, which `links` looks after
            }
            let link = Link {
                hook,
                program,
                program_id,
                attach_type: None,
            };
            let path = directory.join("links").join(hook.program);
            let mut one = Kept::open(path, hook.shown.to_owned(), Some(link))?;
            let info = sys::link_info(one.object.as_fd());
            if let (Some(link), Ok(info)) = (&mut one.link, info) {
                link.attach_type = info.cgroup.map(|(_, attach_type)| attach_type);
            }
            kept.push(one);
        }
        Ok(Self {
            directory: directory.to_owned(),
            mount_point: host::mount_point(directory),
            cgroup,
            kept,
        })
    }

    /// The directory of the pins.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the bpf file system they are on is mounted.
    pub(super) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// What an attempt was aimed at, in words.
    pub(super) fn target_of(&self, attempt: Attempt, event: &Event) -> String {
        let number = u64::from(event.minor);
        let found = self.kept.iter().find(|kept| match attempt {
            Attempt::MAP_FD => kept.link.is_none() && u64::from(kept.id) == number,
            Attempt::PROGRAM_FD => {
                let link = kept.link.as_ref();
                link.is_some_and(|link| u64::from(link.program_id) == number)
            }
            Attempt::DETACH | Attempt::REPLACE | Attempt::LINK_FD => {
                kept.link.is_some() && u64::from(kept.id) == number
            }
            // The kernel sends the low half of the inode number.
            Attempt::PIN_OPEN => kept.ino & 0xffff_ffff == number,
            _ => false,
        });
        match (found, attempt) {
            (Some(kept), _) => kept.shown.clone(),
            (None, Attempt::KILL) => format!("the agent, with signal {number}"),
            (None, Attempt::TRACE | Attempt::LIMIT) => format!("process {}", event.other),
            (None, Attempt::EXECUTABLE) => "the agent's executable".to_owned(),
            (None, Attempt::UNPIN | Attempt::UNMOUNT | Attempt::MOUNT_OVER) => {
                self.directory.display().to_string()
            }
            (None, _) => format!("object {number}"),
        }
    }

    /// Whether a hook runs its program now. `Err` is the reason.
    pub(super) fn runs(&self, program: &str) -> Result<(), String> {
        let of_hook = |kept: &&Kept| {
            let link = kept.link.as_ref();
            link.is_some_and(|link| link.hook.program == program)
        };
        let kept = self.kept.iter().find(of_hook);
        kept.map_or(Ok(()), |kept| {
            kept.runs(&self.cgroup).map_err(|(_, why)| why)
        })
    }

    /// Looks at all, and puts back what is not as it was left.
    pub(super) fn watch(&mut self) -> Vec<Finding> {
        let mut found = self.mended_mount();
        for kept in &mut self.kept {
            found.extend(kept.mended_link(&self.cgroup));
            found.extend(kept.mended_pin());
        }
        found
    }

    /// The bpf file system itself.
    fn mended_mount(&self) -> Vec<Finding> {
        if host::is_bpffs(&self.mount_point) && self.directory.join("links").is_dir() {
            return Vec::new();
        }
        let attempt = if host::is_bpffs(&self.mount_point) {
            Attempt::UNPIN
        } else {
            Attempt::UNMOUNT
        };
        let repaired = if attempt == Attempt::UNMOUNT {
            mount_bpffs(&self.mount_point)
        } else {
            Ok(())
        };
        let repaired = repaired.and_then(|()| fs::create_dir_all(self.directory.join("links")));
        vec![Finding {
            attempt,
            target: self.directory.display().to_string(),
            repaired: repaired.map_err(|error| error.to_string()),
        }]
    }
}

impl Kept {
    fn open(path: PathBuf, shown: String, link: Option<Link>) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Io {
            action: "cannot open",
            path: path.clone(),
            source,
        };
        let object = sys::get(&path).map_err(failed)?;
        let ino = fs::symlink_metadata(&path).map_err(failed)?.ino();
        let id = match &link {
            Some(_) => sys::link_info(object.as_fd()).map(|info| info.id),
            None => sys::map_id(object.as_fd()),
        };
        let id = id.map_err(failed)?;
        Ok(Self {
            path,
            shown,
            object,
            id,
            ino,
            link,
        })
    }

    /// Whether the link runs its program, on the cgroup it should; else what
    /// was done to it, and how that shows.
    fn runs(&self, cgroup: &File) -> Result<(), (Attempt, String)> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        let info = sys::link_info(self.object.as_fd())
            .map_err(|error| (Attempt::DETACH, format!("its link: {error}")))?;
        if info.program != link.program_id {
            let why = format!(
                "its link runs program {}, not {}",
                info.program, link.program_id
            );
            return Err((Attempt::REPLACE, why));
        }
        if matches!(info.cgroup, Some((0, _))) {
            return Err((Attempt::DETACH, "its link was detached".to_owned()));
        }
        let Some(attach_type) = link.attach_type else {
            return Ok(());
        };
        // A link may call itself attached while nothing runs it: to another
        // cgroup, or to one that is dying.
        match sys::effective(cgroup, attach_type) {
            Ok(programs) if programs.contains(&link.program_id) => Ok(()),
            Ok(_) => Err((
                Attempt::DETACH,
                "it is not among the effective programs of the cgroup root".to_owned(),
            )),
            Err(error) => Err((Attempt::DETACH, format!("the effective programs: {error}"))),
        }
    }

    fn mended_link(&mut self, cgroup: &File) -> Option<Finding> {
        let (attempt, why) = self.runs(cgroup).err()?;
        let repaired = self.attach_again(attempt, cgroup);
        Some(Finding {
            attempt,
            target: format!("{}: {why}", self.shown),
            repaired: repaired.map_err(|error| error.to_string()),
        })
    }

    fn attach_again(&mut self, attempt: Attempt, cgroup: &File) -> io::Result<()> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        if attempt == Attempt::REPLACE
            && sys::update_link(self.object.as_fd(), link.program.as_fd()).is_ok()
        {
            return Ok(());
        }
        let attach_type = link.attach_type.ok_or_else(|| {
            io::Error::other("this kind of link is attached at a start only; restart the agent")
        })?;
        let anew = sys::link_cgroup(link.program.as_fd(), cgroup, attach_type)?;
        // The pin holds the link that does nothing any more.
        self.id = sys::link_info(anew.as_fd())?.id;
        self.object = anew;
        self.pin_again()
    }

    /// Whether the pin is where it was left.
    fn mended_pin(&mut self) -> Option<Finding> {
        let there = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.ino);
        if there {
            return None;
        }
        let repaired = self.pin_again();
        Some(Finding {
            attempt: Attempt::UNPIN,
            target: format!("pin of {}", self.shown),
            repaired: repaired.map_err(|error| error.to_string()),
        })
    }

    fn pin_again(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Another object, or a link that was replaced.
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sys::pin(self.object.as_fd(), &self.path)?;
        self.ino = fs::symlink_metadata(&self.path)?.ino();
        Ok(())
    }
}

fn mount_bpffs(at: &Path) -> io::Result<()> {
    fs::create_dir_all(at).ok();
    rustix::mount::mount("bpf", at, "bpf", rustix::mount::MountFlags::empty(), None)
        .map_err(io::Error::from)
}
