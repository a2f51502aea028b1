//! How those who share the engine share what there is only so much of before they are in its batch: places among
//! those who wait, tokens of their prompts.
//!
//! In: who takes how much. Out: whether there is so much for them. What is taken is held by a [`Share`]. It must not
//! know what is shared.
//!
//! Whoever comes first may have all that is open. A quarter more is kept for those who have less than others: of it a
//! tenant gets what keeps it within an even share of everything, and never less than the first thing that it asks for. So
//! nobody, however many requests they send, keeps others from a place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tenants::Tenant;

/// For those who have less than others there is so much more: one part in so many of what is open to all.
const KEPT: u64 = 4;

/// Who holds how much. Integers only.
#[derive(Debug)]
struct Ledger {
    open: u64,
    most: u64,
    total: u64,
    /// Of those who hold anything.
    held: BTreeMap<Tenant, u64>,
}

impl Ledger {
    const fn new(open: u64) -> Self {
        Self { open, most: open.saturating_add(open / KEPT), total: 0, held: BTreeMap::new() }
    }

    /// Whether this tenant may have so much more; then it has.
    fn take(&mut self, tenant: Tenant, n: u64) -> bool {
        let has = self.held.get(&tenant).copied().unwrap_or(0);
        let total = self.total.saturating_add(n);
        // Somebody else may come at any time, so nobody is ever alone.
        let tenants = (self.held.len() as u64 + u64::from(has == 0)).max(2);
        let fair = has == 0 || has.saturating_add(n) <= self.most / tenants;
        let fits = total <= self.most && (total <= self.open || fair);
        if fits {
            self.total = total;
            *self.held.entry(tenant).or_default() += n;
        }
        fits
    }

    fn give(&mut self, tenant: Tenant, n: u64) {
        if let Some(held) = self.held.get_mut(&tenant) {
            let n = n.min(*held);
            *held -= n;
            self.total -= n;
            if *held == 0 {
                self.held.remove(&tenant);
            }
        }
    }
}

/// Something that there is only so much of.
#[derive(Debug)]
pub(super) struct Shares(Mutex<Ledger>);

impl Shares {
    pub(super) fn new(open: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Ledger::new(open))))
    }

    /// So much of it for this tenant, if it may have that.
    pub(super) fn take(self: &Arc<Self>, tenant: Tenant, n: u64) -> Option<Share> {
        let taken = self.ledger().take(tenant, n);
        taken.then(|| Share { of: self.clone(), tenant, n })
    }

    /// How much of it is taken.
    pub(super) fn taken(&self) -> u64 {
        self.ledger().total
    }

    /// It is held for a few additions, none of which leaves it half done.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody has of it. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    of: Arc<Shares>,
    pub(super) tenant: Tenant,
    n: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.ledger().give(self.tenant, self.n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Tenant = Tenant(1);
    const B: Tenant = Tenant(2);
    const C: Tenant = Tenant(3);

    /// How many a tenant gets that asks until it is refused.
    fn fill(ledger: &mut Ledger, tenant: Tenant) -> u64 {
        (0..).take_while(|_| ledger.take(tenant, 1)).count() as u64
    }

    #[test]
    fn who_comes_later_finds_a_place_beside_who_took_all_it_could() {
        let mut ledger = Ledger::new(64);
        assert_eq!(fill(&mut ledger, A), 64);
        assert_eq!(fill(&mut ledger, B), 16, "all that is left is less than its share");
        assert!(!ledger.take(C, 1), "there is no more than there is");
        // What becomes free goes to those who have less than others.
        ledger.give(A, 3);
        assert_eq!((fill(&mut ledger, A), fill(&mut ledger, C)), (0, 3));
        ledger.give(A, 13);
        assert_eq!((fill(&mut ledger, A), fill(&mut ledger, C)), (0, 13));
        ledger.give(A, 17);
        assert!(ledger.take(A, 1), "and anybody may have it when there is enough");
    }

    #[test]
    fn the_first_thing_is_never_too_much_unless_there_is_not_so_much() {
        let mut ledger = Ledger::new(100);
        assert!(ledger.take(A, 100) && !ledger.take(A, 1) && ledger.take(B, 25) && !ledger.take(C, 1));
        ledger.give(A, 100);
        ledger.give(B, 25);
        assert!(ledger.held.is_empty());
        assert!(!ledger.take(A, 126) && ledger.take(A, 60) && ledger.take(B, 65) && !ledger.take(A, 1));
        let mut none = Ledger::new(0);
        assert!(!none.take(A, 1) && none.take(A, 0));
    }

    /// Seeded arrivals and departures of tenants, one of which wants everything.
    #[test]
    fn nobody_is_kept_out_and_sums_stay_right() {
        let shares = Shares::new(40);
        let (mut held, mut seed, mut others): (Vec<Share>, u64, u64) = (Vec::new(), 9, 0);
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (draw, n) = (seed >> 33, 1 + (seed >> 50) % 3);
            match draw % 8 {
                0..=4 => held.extend(shares.take(A, n)),
                5 => {
                    let (before, small) = (shares.taken(), Tenant(2 + draw / 8 % 4));
                    let has = held.iter().any(|share| share.tenant == small);
                    let taken = shares.take(small, 1);
                    assert!(taken.is_some() || has || before == 50);
                    others += u64::from(taken.is_some());
                    held.extend(taken);
                }
                _ if held.is_empty() => {}
                _ => drop(held.swap_remove(usize::try_from(draw / 8).unwrap() % held.len())),
            }
            let sum = |of: &dyn Fn(&&Share) -> bool| held.iter().filter(of).map(|s| s.n).sum::<u64>();
            assert_eq!(shares.taken(), sum(&|_| true));
            assert!(sum(&|share| share.tenant == A) <= 40 && shares.taken() <= 50);
        }
        assert!(others > 100, "{others}");
        held.clear();
        assert!(shares.ledger().held.is_empty() && shares.taken() == 0);
    }
}
