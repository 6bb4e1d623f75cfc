//! What is sealed, for others to read. A fault in it is told and stops nothing.

use super::tiles::Tiles;
use super::{Ledger, LedgerError, NewKey, held, key};
use merestone_evidence::Entry;

impl Ledger {
    /// Publish what is sealed, from now on, as a log of this node. The key that signs it is made
    /// at the first call, and again where its file was taken away; `tell` makes the entry that
    /// says so, which is on the disk before the key is used.
    pub fn publish_as(
        &self,
        node: &str,
        tell: impl FnOnce(NewKey) -> Entry,
    ) -> Result<(), LedgerError> {
        let signer = key::load(&self.log, node, |made| {
            self.append(&tell(made))?;
            self.sync().map(drop)
        })?;
        let (size, _) = self.sync()?;
        let sealed = held(&self.seals).checkpoint;
        let tiles = Tiles::open(&self.log, signer, sealed.size.min(size))?;
        *held(&self.tiles) = Some(tiles);
        if let Err(error) = self.publish() {
            tracing::warn!(%error, "tiles not published");
        }
        Ok(())
    }

    /// Who checks what is published.
    pub fn log_key(&self) -> Option<String> {
        let tiles = held(&self.tiles);
        tiles.as_ref().map(|tiles| tiles.key().to_string())
    }

    pub(super) fn publish(&self) -> Result<(), LedgerError> {
        let mut tiles = held(&self.tiles);
        let Some(tiles) = tiles.as_mut() else {
            return Ok(());
        };
        let (checkpoint, last) = {
            let seals = held(&self.seals);
            (seals.checkpoint, seals.last)
        };
        let Some(last) = last else {
            return Ok(());
        };
        let [data, index] = held(&self.leaves).files();
        tiles.publish(
            (data.file(), index.file()),
            (checkpoint.size, checkpoint.root),
            last,
        )
    }
}
