//! A statement on its connection. It ends with an error when another server takes the place of the one that works on it: a
//! server that vanished says nothing, and whoever waits for it would wait for ever.

use std::sync::Arc;
use std::task::Poll;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::sync::watch;

use super::connect::Server;
use super::history::{History, Present};

/// Which server and history a connection has reached, and which ones new connections reach.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    server: Server,
    current: watch::Receiver<Option<Server>>,
    present: Present,
    history: Arc<History>,
}

impl Reached {
    pub(super) fn new(
        server: Server,
        current: watch::Receiver<Option<Server>>,
        present: Present,
        history: Arc<History>,
    ) -> Self {
        Self {
            server,
            current,
            present,
            history,
        }
    }

    /// The history of the database that it belongs to.
    pub(super) fn present(&self) -> Present {
        self.present
    }

    /// Whether it is the one that new connections reach.
    pub(super) fn is_current(&self) -> bool {
        *self.current.borrow() == Some(self.server) && self.history.present() == self.present
    }

    /// Ends when it is not any more.
    async fn replaced(mut self) -> Error {
        let changed = self.current.wait_for(|now| *now != Some(self.server));
        if changed.await.is_err() {
            std::future::pending::<()>().await;
        }
        Error::Io(std::io::ErrorKind::ConnectionAborted.into())
    }
}

/// A connection for one statement.
#[derive(Debug)]
pub struct Run<'c> {
    connection: &'c mut PgConnection,
    reached: Reached,
}

impl<'c> Run<'c> {
    pub(super) fn new(connection: &'c mut PgConnection, reached: &Reached) -> Self {
        Self {
            connection,
            reached: reached.clone(),
        }
    }
}

impl<'c> Executor<'c> for Run<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let mut found = self.connection.fetch_many(query);
        let mut replaced = Box::pin(self.reached.replaced());
        stream::poll_fn(move |context| match found.poll_next_unpin(context) {
            Poll::Pending => replaced.poll_unpin(context).map(|error| Some(Err(error))),
            ready @ Poll::Ready(_) => ready,
        })
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let mut found = self.connection.fetch_optional(query);
        let mut replaced = Box::pin(self.reached.replaced());
        std::future::poll_fn(move |context| match found.poll_unpin(context) {
            Poll::Pending => replaced.poll_unpin(context).map(Err),
            ready @ Poll::Ready(_) => ready,
        })
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.connection.prepare_with(sql, parameters)
    }
}
