from trailsift.api import Lake as Lake
from trailsift.errors import ConflictError as ConflictError
from trailsift.errors import EngineError as EngineError
from trailsift.errors import GlueError as GlueError
from trailsift.errors import LakeError as LakeError
from trailsift.errors import QueryError as QueryError
from trailsift.errors import QueryMemoryError as QueryMemoryError
from trailsift.errors import QueryTimeoutError as QueryTimeoutError
from trailsift.errors import RulesError as RulesError
from trailsift.errors import S3Error as S3Error
from trailsift.errors import SnapshotGoneError as SnapshotGoneError
from trailsift.errors import SourceError as SourceError
from trailsift.errors import TrailsiftError as TrailsiftError
from trailsift.errors import UnknownOutcomeError as UnknownOutcomeError
from trailsift.errors import UsageError as UsageError
from trailsift.ingest.counts import Counts as Counts
from trailsift.query.query_result import QueryResult as QueryResult
from trailsift.rules import Rules as Rules

__version__: str
__all__: list[str]
