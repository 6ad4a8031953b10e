"""The conformance suite of stores.

A third party's engine proves itself with a few lines in a test file::

    from daram.testing import StoreTests

    class TestMyStore(StoreTests):
        async def open_store(self, where):        # ``where``: an empty directory per test; the same one, the same data
            return MyStore(where / "data")

``open_store`` may be called several times with the same ``where``: at once (two handles on the same data, as two
processes have them) and after a close (what was acknowledged is there again). An engine that keeps its data elsewhere
uses ``where`` as a name.

Some hooks are optional. ``raw_messages`` looks behind the store, so that an engine that writes and reads wrong alike
cannot pass. ``records``: False for an engine that refuses the operations of ``SupportsRecords``; ``documents``: the
same for ``SupportsDocuments``, and ``vectors`` for one that finds documents by words only;
``searches_everywhere``: False for one that searches within one conversation only.

Needs pytest and pytest-asyncio, in any of its modes. No test asserts a duration.
"""

from __future__ import annotations

from daram.testing.suite.branches import BranchTests
from daram.testing.suite.concurrency import ConcurrencyTests
from daram.testing.suite.conversations import ConversationTests
from daram.testing.suite.document_moves import DocumentMoveTests
from daram.testing.suite.documents import DocumentTests
from daram.testing.suite.input import InputTests
from daram.testing.suite.life import LifeTests
from daram.testing.suite.messages import MessageTests
from daram.testing.suite.owners import OwnerTests
from daram.testing.suite.paging import PagingTests
from daram.testing.suite.passages import PassageTests
from daram.testing.suite.records import RecordTests
from daram.testing.suite.recovery import RecoveryTests
from daram.testing.suite.repetition import RepetitionTests
from daram.testing.suite.search import SearchTests
from daram.testing.suite.transfer import TransferTests
from daram.testing.suite.turns import TurnTests


class StoreTests(
    ConversationTests,
    MessageTests,
    RepetitionTests,
    PagingTests,
    BranchTests,
    TurnTests,
    RecoveryTests,
    SearchTests,
    RecordTests,
    DocumentTests,
    PassageTests,
    DocumentMoveTests,
    OwnerTests,
    TransferTests,
    InputTests,
    ConcurrencyTests,
    LifeTests,
):
    """Everything that a Store promises. Subclass it as ``Test…`` and fill in ``open_store``."""
