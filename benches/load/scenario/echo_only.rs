//! The echo alone, at every load that a ratio needs: shows whether the client or the machine has changed.

use serde_json::json;

use crate::Result;
use crate::row::Row;
use crate::scenario::Context;

pub(crate) async fn run(context: &Context, name: &str) -> Result<Row> {
    let (mut outcomes, mut more) = (Vec::new(), serde_json::Map::new());
    for batch in [1, 10] {
        for connections in [64, 256] {
            let outcome = context.echo_outcome(connections, batch).await?;
            eprintln!(
                "  batch {batch}, {connections} connections: {:.0} requests/s",
                outcome.requests_per_second()
            );
            more.insert(
                format!("echo-{batch}-c{connections}"),
                json!(outcome.requests_per_second()),
            );
            outcomes.push(outcome);
        }
    }
    let mut row = Row::new(name, &outcomes);
    row.more = more.into();
    Ok(row)
}
