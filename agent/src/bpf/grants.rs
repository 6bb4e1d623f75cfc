//! Grants, for the kernel.
//!
//! The agent writes what is granted and reads what was used. It sets a count
//! to nothing only before the grant that uses it is there.

use super::maps::failed;
use super::wire::Wire;
use super::{Kernel, KernelError, cgroups};
use merestone_abi::{Grant, GrantUse, MAX_GRANTS, maps};

impl Kernel {
    /// The cgroup at a path below the root, as `/a/b`.
    pub fn cgroup_id(&self, path: &str) -> Option<u64> {
        cgroups::id(&cgroups::at(&self.hierarchy, path))
    }

    /// Every grant that is in force, by its place, with what was used of it.
    pub fn grants(&self) -> Result<Vec<(u32, Grant, GrantUse)>, KernelError> {
        let mut found = Vec::new();
        for place in 0..MAX_GRANTS {
            let Wire(grant) = self
                .maps
                .grants
                .get(&place, 0)
                .map_err(|error| failed(maps::GRANTS, &error))?;
            if grant == Grant::default() {
                continue;
            }
            let Wire(used) = self
                .maps
                .grant_uses
                .get(&place, 0)
                .map_err(|error| failed(maps::GRANT_USES, &error))?;
            found.push((place, grant, used));
        }
        Ok(found)
    }

    /// Puts a new grant into force, with nothing used of it.
    pub fn grant(&mut self, place: u32, grant: &Grant) -> Result<(), KernelError> {
        self.withdraw(place)?;
        self.maps
            .grant_uses
            .set(place, Wire(GrantUse::default()), 0)
            .map_err(|error| failed(maps::GRANT_USES, &error))?;
        self.watched.granted(place);
        self.write_grant(place, grant)
    }

    /// The same grant for another cgroup of its path; its count stays.
    pub fn regrant(&mut self, place: u32, grant: &Grant) -> Result<(), KernelError> {
        self.write_grant(place, grant)
    }

    /// Takes a grant out of force.
    pub fn withdraw(&mut self, place: u32) -> Result<(), KernelError> {
        self.write_grant(place, &Grant::default())
    }

    fn write_grant(&mut self, place: u32, grant: &Grant) -> Result<(), KernelError> {
        self.maps
            .grants
            .set(place, Wire(*grant), 0)
            .map_err(|error| failed(maps::GRANTS, &error))?;
        self.shadow.granted(place, *grant);
        Ok(())
    }
}
