//! What each tenant has had of the engine, so that the next is who had least. Integers only.
//!
//! The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): while two
//! tenants both want more than they get, what they get differs by a bounded number of tokens. A tenant that comes
//! back after a pause does not get what it did not ask for, and one that had much before does not start anew.

use std::collections::BTreeMap;

/// Who shares the engine's time with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenant(pub u64);

/// A generated token costs a step, a prompt's tokens share one: the paper's weights.
const READ: u64 = 1;
const WRITTEN: u64 = 2;
/// Tenants without requests that are remembered, so that made-up names fill no memory.
const REMEMBERED: usize = 1024;

/// What every tenant has had.
#[derive(Debug, Default)]
pub struct Tenants(BTreeMap<Tenant, Account>);

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    served: u64,
    requests: u32,
}

impl Tenants {
    /// A request of this tenant has come.
    pub fn enter(&mut self, tenant: Tenant) {
        let least = self.least();
        let account = self.0.entry(tenant).or_default();
        if account.requests == 0 {
            account.served = account.served.max(least);
        }
        account.requests += 1;
    }

    /// A request of this tenant has gone.
    pub fn leave(&mut self, tenant: Tenant) {
        if let Some(account) = self.0.get_mut(&tenant) {
            account.requests = account.requests.saturating_sub(1);
        }
        // Who had no more than anybody who is here would start at the same number if it were forgotten.
        let least = self.least();
        let anybody = self.0.values().any(|account| account.requests > 0);
        self.0.retain(|_, account| account.requests > 0 || (anybody && account.served > least));
        let mut idle: Vec<_> =
            self.0.iter().filter(|(_, a)| a.requests == 0).map(|(t, a)| (a.served, *t)).collect();
        if idle.len() > REMEMBERED {
            idle.sort_unstable();
            for (_, tenant) in &idle[..idle.len() - REMEMBERED] {
                self.0.remove(tenant);
            }
        }
    }

    /// Tokens of this tenant were computed: so many that were there, so many that were chosen.
    pub fn serve(&mut self, tenant: Tenant, read: u32, written: u32) {
        if let Some(account) = self.0.get_mut(&tenant) {
            account.served += u64::from(read) * READ + u64::from(written) * WRITTEN;
        }
    }

    /// What a tenant has had.
    #[must_use]
    pub fn served(&self, tenant: Tenant) -> u64 {
        self.0.get(&tenant).map_or(0, |account| account.served)
    }

    /// The least that anybody has had who wants something.
    fn least(&self) -> u64 {
        self.0
            .values()
            .filter(|account| account.requests > 0)
            .map(|account| account.served)
            .min()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_earns_nothing_and_costs_nothing() {
        let (a, b, c) = (Tenant(1), Tenant(2), Tenant(3));
        let mut tenants = Tenants::default();
        tenants.enter(a);
        tenants.serve(a, 100, 10);
        tenants.enter(b);
        assert_eq!((tenants.served(a), tenants.served(b)), (120, 120), "who is new starts with the others");
        tenants.serve(b, 50, 0);
        tenants.leave(b);
        tenants.enter(b);
        assert_eq!(tenants.served(b), 170, "going and coming back does not help");
        tenants.leave(a);
        tenants.enter(c);
        assert_eq!((tenants.served(a), tenants.served(c)), (0, 170));
        tenants.leave(b);
        tenants.leave(c);
        assert!(tenants.0.is_empty(), "nobody is remembered when there is nobody to compare with");
    }

    #[test]
    fn made_up_names_fill_no_memory() {
        let mut tenants = Tenants::default();
        tenants.enter(Tenant(0));
        for n in 1..3000 {
            tenants.enter(Tenant(n));
            tenants.serve(Tenant(n), 1, 0);
            tenants.leave(Tenant(n));
        }
        assert!(tenants.0.len() <= REMEMBERED + 1, "{}", tenants.0.len());
    }
}
