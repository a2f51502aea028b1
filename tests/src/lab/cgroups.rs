//! The control groups of a lab: one group per hierarchy, below which the kubelet puts all pods.
//!
//! In: where hierarchies are mounted, the group's name. Out: groups that a kubelet can use, or none again. With v1 there
//! is a hierarchy per controller; with v2 there is one, in which a parent hands each controller down to its children.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where control groups are mounted.
pub const MOUNTED: &str = "/sys/fs/cgroup";
/// A kubelet refuses a cgroup v2 root without one of these that the machine has.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "hugetlb", "pids"];

/// Makes the group `name` in every hierarchy below `mounted`.
pub fn make(mounted: &Path, name: &str) -> Result<()> {
    for hierarchy in hierarchies(mounted)? {
        let group = hierarchy.join(name);
        if !group.exists() {
            fs::create_dir(&group)
                .with_context(|| format!("cannot create the cgroup {}", group.display()))?;
            for set in ["cpuset.cpus", "cpuset.mems"] {
                // A v1 cpuset starts empty and admits nobody until it has its parent's.
                if hierarchy.join("cpuset.sched_load_balance").exists() {
                    fs::write(group.join(set), fs::read(hierarchy.join(set))?)?;
                }
            }
        }
        if hierarchy == mounted {
            delegate(&hierarchy, &group)?;
        }
    }
    Ok(())
}

/// Removes the group `name` with all below it from every hierarchy; fails while processes are in it.
pub fn remove(mounted: &Path, name: &str) -> Result<()> {
    hierarchies(mounted)?.iter().try_for_each(|hierarchy| remove_group(&hierarchy.join(name)))
}

/// The hierarchies: one with cgroup v2, one per controller with v1.
pub fn hierarchies(mounted: &Path) -> Result<Vec<PathBuf>> {
    if is_unified(mounted) {
        return Ok(vec![mounted.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(mounted)? {
        let entry = entry?;
        // Symbolic links name the same hierarchy a second time.
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn is_unified(hierarchy: &Path) -> bool {
    hierarchy.join("cgroup.controllers").exists()
}

/// Hands the controllers that a kubelet needs from `parent` to `group`, and from it to what the kubelet makes there.
/// They stay on for the parent's other children, which are not limited by that.
fn delegate(parent: &Path, group: &Path) -> Result<()> {
    for level in [parent, group] {
        let read = |file: &str| fs::read_to_string(level.join(file));
        for order in orders(&read("cgroup.controllers")?, &read("cgroup.subtree_control")?) {
            fs::write(level.join("cgroup.subtree_control"), &order).with_context(|| {
                format!(
                    "cannot switch on {order} below the cgroup {}. In a container, processes in the root of its cgroup \
                     namespace prevent it: move them to a group below it, or run this on the machine itself",
                    level.display()
                )
            })?;
        }
    }
    let given = fs::read_to_string(group.join("cgroup.controllers"))?;
    let offered = fs::read_to_string(parent.join("cgroup.controllers"))?;
    let missing = orders(&offered, &given);
    ensure!(missing.is_empty(), "the cgroup {} did not get {missing:?}", group.display());
    Ok(())
}

/// What to write for the needed controllers that are offered and not handed down yet.
fn orders(offered: &str, handed_down: &str) -> Vec<String> {
    let has = |list: &str, controller: &str| list.split_whitespace().any(|word| word == controller);
    let needed = CONTROLLERS.iter().filter(|name| has(offered, name) && !has(handed_down, name));
    needed.map(|name| format!("+{name}")).collect()
}

fn remove_group(group: &Path) -> Result<()> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group).with_context(|| format!("cannot remove the cgroup {}", group.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_offered_and_not_yet_handed_down_is_switched_on() {
        assert_eq!(
            orders("cpuset cpu io memory hugetlb pids rdma misc\n", "memory pids\n"),
            ["+cpu", "+cpuset", "+hugetlb"]
        );
        assert_eq!(orders("cpu io\n", "cpu\n"), Vec::<String>::new());
        assert_eq!(orders("", ""), Vec::<String>::new());
    }

    /// The kernel's own hierarchy, which every machine has since 5.0; with v1, few controllers or none are left in it.
    #[test]
    fn the_kernel_hands_down_what_it_offers() {
        let temporary = tempfile::tempdir().unwrap();
        let unified = temporary.path();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), unified, Some("cgroup2"), flags, None::<&str>).unwrap();
        let before = fs::read_to_string(unified.join("cgroup.subtree_control")).unwrap();
        let name = format!("llmfleet-unit-{}", std::process::id());
        let made = make(unified, &name).and_then(|()| make(unified, &name));
        let read = |file: &str| fs::read_to_string(unified.join(file)).unwrap();
        let (offered, given, below) = (
            read("cgroup.controllers"),
            read(&format!("{name}/cgroup.controllers")),
            read(&format!("{name}/cgroup.subtree_control")),
        );
        let nested = fs::create_dir(unified.join(&name).join("pods"));
        let removed = remove(unified, &name);
        let left = unified.join(&name).exists();
        for order in orders(&offered, &before) {
            // A lab that started meanwhile keeps what it was handed.
            let _ = fs::write(unified.join("cgroup.subtree_control"), order.replace('+', "-"));
        }
        nix::mount::umount(unified).unwrap();
        made.unwrap();
        nested.unwrap();
        removed.unwrap();
        assert!(!left);
        assert_eq!(
            orders(&offered, &given),
            Vec::<String>::new(),
            "{offered} of the root, {given} of the group"
        );
        assert_eq!(orders(&given, &below), Vec::<String>::new(), "{given} of the group, {below} below it");
    }
}
