//! What serves goes on serving: charts come, change, go back, go and come again under models that answer all the time.
//!
//! One lab, whose Pod Security is `restricted` everywhere. Pods are the same as long as their UIDs, containers and
//! restart counts are. `make upgrade FROM=<git ref>` runs this with a really older operator.

mod upgrade {
    pub(crate) mod assigned;
    pub(crate) mod client;
    pub(crate) mod gone;
    pub(crate) mod live;
    pub(crate) mod releases;
    pub(crate) mod steps;
}

use std::fs;

use anyhow::{Result, ensure};
use e2e::bench::{self, Bench, cpu};
use e2e::paths::repository;
use upgrade::client::Client;
use upgrade::releases::Releases;
use upgrade::steps::Walk;
use upgrade::{assigned, gone, live};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_restarts_that_need_not() {
    let bench = Bench::empty("upgrade", env!("CARGO_BIN_EXE_lab").into()).await.unwrap();
    let result = all(&bench).await;
    bench.finish(result).await.unwrap();
}

async fn all(bench: &Bench) -> Result<()> {
    let releases = Releases::prepare(&bench.lab)?;
    println!("  from {} to {}", releases.from, releases.to);
    let file = bench.publish("model.gguf", &bench::model()?)?;
    bench.install_from(&releases.older, &[])?;

    let (team, other) = (bench.case("team").await?, bench.case("other").await?);
    live::fill_claim(&team, &file).await?;
    for (case, name, spec) in
        [(&team, "inline", cpu(&file)), (&team, "claimed", live::claimed()), (&other, "paused", cpu(&file))]
    {
        case.apply(name, &spec).await?;
    }
    for (case, name) in [(&team, "inline"), (&team, "claimed"), (&other, "paused")] {
        case.until_ready(name).await?;
    }
    let (inline, claimed, paused) = (
        Client::start(&team, "inline").await?,
        Client::start(&team, "claimed").await?,
        Client::start(&other, "paused").await?,
    );
    let walk = Walk::start(bench, &team.client).await?;
    let walked = async {
        walk.up_and_down(&releases, &other).await?;
        walk.kinds(&releases).await?;
        gone::with_live_models(&walk, &other, paused).await?;
        assigned::users(&walk, &file).await
    };
    let walked = walked.await;
    walk.end(inline);
    walk.end(claimed);
    let report = walk.report(&releases);
    println!("  {report}");
    if releases.is_real {
        let reports = repository().join("target/reports");
        fs::create_dir_all(&reports)?;
        fs::write(reports.join("upgrade.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    }
    walked?;
    ensure!(report["restarted"] == 0 && report["failed"] == 0, "{report}");
    gone::in_order(&walk, &team).await
}
