//! Objects as files below one directory, for the embedded mode. A file appears under its key only when it is complete
//! and on disk (temporary file, fsync, rename, fsync of the directory), so a crash leaves nothing but a temporary file.
//! Does not check keys (`key` does), and does not remove empty directories: that would race with a write.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::backend::{Backend, Pieces, Request, Uploading};
use super::metrics::Op;
use super::source::Source;
use super::{Error, Listed};
use crate::disk::Space;

/// Directory of unfinished files. Begins with a dot, so no key can name it.
const UNFINISHED: &str = ".unfinished";
/// Objects per page of a listing, as in S3.
const PAGE: usize = 1_000;
/// Bytes per piece of a stream.
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: Arc<Path>,
}

impl Directory {
    pub(super) async fn open(root: &Path) -> Result<Self, Error> {
        let unfinished = root.join(UNFINISHED);
        blocking("opening the directory", move || {
            fs::create_dir_all(unfinished)
        })
        .await?;
        Ok(Self { root: root.into() })
    }

    /// Writes a body to a file piece by piece.
    async fn write(&self, key: &str, source: &mut Source<'_>) -> Result<(), Error> {
        let failed = |error: io::Error| Error::unavailable("writing a file")(error);
        let (target, unfinished) = (self.path(key), self.unfinished());
        let mut file = tokio::fs::File::create_new(&unfinished.0)
            .await
            .map_err(failed)?;
        while let Some(piece) = source.piece().await? {
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        let root = Arc::clone(&self.root);
        blocking("writing a file", move || {
            finish(&root, &unfinished, &target)
        })
        .await
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn unfinished(&self) -> Unfinished {
        let name = format!("{:032x}", rand::random::<u128>());
        Unfinished(self.root.join(UNFINISHED).join(name))
    }
}

impl Backend for Directory {
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Request<'a, ()> {
        Box::pin(async move {
            let (target, unfinished) = (self.path(key), self.unfinished());
            let root = Arc::clone(&self.root);
            blocking("writing a file", move || {
                check_room(&root, body.len() as u64)?;
                let mut file = File::create_new(&unfinished.0)?;
                file.write_all(&body)?;
                file.sync_all()?;
                finish(&root, &unfinished, &target)
            })
            .await
        })
    }

    fn upload<'a>(
        &'a self,
        key: &'a str,
        source: &'a mut Source<'_>,
        uploading: Uploading<'a>,
    ) -> Request<'a, ()> {
        let written = self.write(key, source);
        Box::pin(uploading.metrics.count(Op::Put, written))
    }

    fn range<'a>(&'a self, key: &'a str, range: Range<u64>) -> Request<'a, Bytes> {
        Box::pin(async move {
            let (path, want) = (self.path(key), range.end - range.start);
            let read = blocking("reading a file", move || {
                let mut file = match File::open(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    opened => opened?,
                };
                file.seek(SeekFrom::Start(range.start))?;
                let mut body = Vec::new();
                file.take(want).read_to_end(&mut body)?;
                Ok(Some(body))
            });
            let body = read.await?.ok_or_else(|| not_found(key))?;
            let got = body.len() as u64;
            if got < want {
                return Err(Error::Truncated {
                    key: key.to_owned(),
                    expected: want,
                    got,
                });
            }
            Ok(body.into())
        })
    }

    fn stream<'a>(&'a self, key: &'a str, range: Range<u64>) -> Request<'a, Pieces> {
        Box::pin(async move {
            let failed = |error: io::Error| Error::unavailable("reading a file")(error);
            let mut file = match tokio::fs::File::open(self.path(key)).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(not_found(key));
                }
                opened => opened.map_err(failed)?,
            };
            file.seek(SeekFrom::Start(range.start))
                .await
                .map_err(failed)?;
            let body = file.take(range.end - range.start);
            Ok(ReaderStream::with_capacity(body, PIECE_BYTES)
                .map_err(failed)
                .boxed())
        })
    }

    fn delete<'a>(&'a self, keys: &'a [String]) -> Request<'a, ()> {
        Box::pin(async move {
            let paths: Vec<_> = keys.iter().map(|key| self.path(key)).collect();
            blocking("deleting files", move || {
                for path in paths {
                    remove(&path)?;
                }
                Ok(())
            })
            .await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Request<'a, Vec<Listed>> {
        Box::pin(async move {
            let root = Arc::clone(&self.root);
            let mut page = Page {
                prefix: prefix.to_owned(),
                after: after.map(str::to_owned),
                found: BTreeMap::new(),
            };
            blocking("listing files", move || {
                let (folder, _) = page.prefix.rsplit_once('/').unwrap_or_default();
                let folder = folder.to_owned();
                page.walk(&root, &folder)?;
                Ok(page.found.into_values().collect())
            })
            .await
        })
    }

    /// The directory belongs to one installation, and its unfinished files have no keys yet, so the prefix is ignored.
    fn sweep_uploads<'a>(&'a self, _: &'a str, before: OffsetDateTime) -> Request<'a, usize> {
        Box::pin(async move {
            let folder = self.root.join(UNFINISHED);
            blocking("sweeping unfinished files", move || {
                let mut swept = 0;
                for entry in fs::read_dir(folder)? {
                    let entry = entry?;
                    let Some(meta) = gone_is_none(entry.metadata())? else {
                        continue;
                    };
                    if OffsetDateTime::from(meta.modified()?) < before {
                        remove(&entry.path())?;
                        swept += 1;
                    }
                }
                Ok(swept)
            })
            .await
        })
    }

    /// Creates and removes an empty file: fails when the directory is missing, read-only or full.
    fn check(&self) -> Request<'_, ()> {
        Box::pin(async move {
            let unfinished = self.unfinished();
            blocking("checking the directory", move || {
                File::create_new(&unfinished.0).map(drop)
            })
            .await
        })
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A temporary file, removed when dropped. After the rename there is nothing left to remove.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "an unfinished file stays until the next sweep");
        }
    }
}

/// Refuses an object that would leave too little on the disk for Postgres, which shares it.
fn check_room(root: &Path, bytes: u64) -> io::Result<()> {
    if Space::of(root)?.takes(bytes) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        "the disk is nearly full",
    ))
}

/// Renames a synced temporary file to its final name and makes that durable. A new folder is durable only after its
/// parent is synced as well.
fn finish(root: &Path, unfinished: &Unfinished, target: &Path) -> io::Result<()> {
    let parent = target.parent().unwrap_or(root);
    let missing: Vec<_> = parent
        .ancestors()
        .take_while(|folder| *folder != root && !folder.exists())
        .collect();
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync(folder.parent().unwrap_or(root))?,
        }
    }
    fs::rename(&unfinished.0, target)?;
    sync(parent)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    gone_is_none(fs::remove_file(path)).map(drop)
}

fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn not_found(key: &str) -> Error {
    Error::NotFound {
        key: key.to_owned(),
    }
}

/// Runs file work off the async threads. Work that has begun runs to its end even if the caller is cancelled. That is
/// safe here, because a file appears completely or not at all.
async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::unavailable(action))?
        .map_err(Error::unavailable(action))
}

/// The first objects of a listing found so far, never more than one page.
struct Page {
    prefix: String,
    after: Option<String>,
    found: BTreeMap<String, Listed>,
}

impl Page {
    fn walk(&mut self, root: &Path, folder: &str) -> io::Result<()> {
        let Some(entries) = gone_is_none(fs::read_dir(root.join(folder)))? else {
            return Ok(());
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let key = if folder.is_empty() {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            };
            let Some(meta) = gone_is_none(entry.metadata())? else {
                continue;
            };
            if meta.is_dir() {
                self.walk(root, &key)?;
            } else {
                self.add(key, &meta)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, key: String, meta: &fs::Metadata) -> io::Result<()> {
        let is_wanted =
            key.starts_with(&self.prefix) && self.after.as_ref().is_none_or(|after| key > *after);
        if is_wanted {
            let listed = Listed {
                key: key.clone(),
                bytes: meta.len(),
                modified: meta.modified()?.into(),
            };
            self.found.insert(key, listed);
            if self.found.len() > PAGE {
                self.found.pop_last();
            }
        }
        Ok(())
    }
}
