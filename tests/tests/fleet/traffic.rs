//! Operator, runtimes and jobs try to reach what they must and nothing else, whatever else the test did to them; and
//! only the operator can prove who it is.

use anyhow::{Context, Result, ensure};
use contract::http::ADMIN_PORT;
use e2e::addresses::KUBERNETES_SERVICE;
use e2e::bench;
use e2e::lab::packets::Target;
use e2e::traffic::{Witness, has_token};

pub(crate) fn is_what_it_must_be(witness: Witness) -> Result<()> {
    let told = witness.tells()?;
    for ((command, target), packets) in &told.attempts {
        println!("  {command} → {target}: {packets}");
    }
    let tcp = |target: &Target, port: u16| target.protocol == "tcp" && target.port == port;
    // The API server; and how far those are that load. It needs no names.
    let of_operator = |target: &&Target| {
        let asks = tcp(target, ADMIN_PORT) && told.pods.contains_key(&target.address);
        let api = tcp(target, 443) && target.address == KUBERNETES_SERVICE;
        !(asks || api)
    };
    // The web server, at the address that the specs name.
    let of_fetch =
        |target: &&Target| !(tcp(target, bench::FILES_PORT) && target.address == e2e::addresses::NODE);
    let nothing = |_: &&Target| true;
    // The least that must have been there, or nothing would be shown.
    type Surprise<'a> = &'a dyn Fn(&&Target) -> bool;
    let expected: [(&str, usize, usize, Surprise<'_>); 4] = [
        ("run", 1, 2, &of_operator),
        ("fetch", 5, 1, &of_fetch),
        ("inspect", 1, 0, &nothing),
        ("serve", 3, 0, &nothing),
    ];
    for (command, pods, targets, surprise) in expected {
        let (seen, tried) = (told.running(command).count(), told.targets(command));
        println!("  {command}: {seen} pods tried to reach {} targets", tried.len());
        ensure!(seen >= pods && tried.len() >= targets, "{command}: {seen} pods, {tried:?}");
        let surprises: Vec<_> = tried.into_iter().filter(surprise).map(ToString::to_string).collect();
        ensure!(surprises.is_empty(), "{command} tried to reach {surprises:?}");
        for (_, pod) in told.running(command) {
            let name = pod.metadata.name.as_deref().context("a pod has a name")?;
            ensure!(has_token(pod) == (command == "run"), "the token of {name}");
        }
    }
    Ok(())
}
