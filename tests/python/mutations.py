# SPDX-License-Identifier: Apache-2.0
"""Bugs to seed into the protocol that makes files durable, each a replacement of the exact text of a source. The tests
of crashes must find each of CAUGHT. Those of REDUNDANT change nothing that a job can tell, each with its reason."""

import dataclasses

LEDGER = "src/ledger/ledger.cc"
JOURNAL = "src/ledger/journal.cc"
RECORD = "src/ledger/record.cc"
ROW_LOG = "src/ledger/row_log.cc"
DISK = "src/storage/disk_storage.cc"


@dataclasses.dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str
    why_redundant: str = ""


PUBLISH_INTENT = "  MS_RETURN_NOT_OK(WriteIntent(parts.front().split, intent));\n"
PUBLISH_ERRORS = """\
  // Before the parts: where a part stands, its failed rows do.
  if (!errors.empty()) MS_RETURN_NOT_OK(storage_.PublishAll(errors).status());
"""
PUBLISH_PARTS = "  MS_ASSIGN_OR_RETURN(const std::vector<bool> moved, storage_.PublishAll(files));\n"
SYNC_ROWS = "  for (const FinishedPart& part : parts) MS_RETURN_NOT_OK(SyncRows(part.split));\n"
DROP_ROWS = "  for (const auto& [split, part] : parts) MS_RETURN_NOT_OK(rows_->Drop(split));\n"
PUBLISH_PLAN = '  MS_ASSIGN_OR_RETURN(job["plan"], ledger->WritePlan(plan, 0));\n'
NAME_PLAN = '  job["plan"] = "plan-0000-" + HashOf(plan.dump(1));\n'
PUBLISH_PLAN_LATE = "  MS_RETURN_NOT_OK(ledger->WritePlan(plan, 0).status());\n"
PUBLISH_JOB = '  MS_RETURN_NOT_OK(PublishBytes(storage, ledger->layout_.state + "/job.json", job.dump(2) + "\\n"));\n'

JOURNAL_REPLACE = "  MS_RETURN_NOT_OK(journal_->Add(EntryType::kReplace, body));\n"
EXCHANGE_PARTS = """\
  for (const FinishedPart& part : parts) {
    MS_RETURN_NOT_OK(ExchangeAsLatest(part.path, layout_.PartPath(part.split)));
  }
"""
KEEP_OLD = "    MS_RETURN_NOT_OK(KeepOld(part.split, old));\n"

CAUGHT = [
    Mutation(
        "a file is renamed before it is synced",
        DISK,
        "    MS_RETURN_NOT_OK(SyncFiles(files));\n",
        "",
    ),
    Mutation(
        "the folder of published files is not synced",
        DISK,
        "for (const std::string& folder : folders) MS_RETURN_NOT_OK(SyncEntries(folder));",
        "",
    ),
    Mutation(
        "the folder of a file that grows is not synced",
        DISK,
        "synced = storage_.SyncEntries(ParentOf(file_->path()));",
        "synced = Status::OK();",
    ),
    Mutation(
        "a folder's own name is not synced",
        DISK,
        "const Status synced = SyncOne(ParentOf(*path));",
        "const Status synced = Status::OK();",
    ),
    Mutation(
        "a folder that a dead driver made counts as durable",
        DISK,
        "      if (error == 0) continue;\n",
        """\
      if (error == EEXIST) {
        MutexLock lock(mutex_);
        durable_folders_.insert(path);
      }
      if (error == 0) continue;
""",
    ),
    Mutation(
        "a published file is replaced",
        DISK,
        '      if (error != 0 && error != EEXIST) return FileError(error, "publish", file.to);\n',
        """\
      if (error == EEXIST) {
        (void)disk_.Remove(file.to);
        error = disk_.RenameWithoutReplacing(file.from, file.to);
      }
      if (error != 0) return FileError(error, "publish", file.to);
""",
    ),
    Mutation(
        "a part is journaled before it stands",
        LEDGER,
        PUBLISH_PARTS,
        "  MS_RETURN_NOT_OK(JournalParts(committed));\n" + PUBLISH_PARTS,
    ),
    Mutation(
        "a part's name depends on the driver",
        LEDGER,
        "files.push_back({part.path, layout_.PartPath(part.split)});",
        "files.push_back({part.path, layout_.PartPath(part.split + 1000 * (journal_->epoch() - 1))});",
    ),
    Mutation(
        "the row log is dropped before its part stands",
        LEDGER,
        PUBLISH_PARTS,
        "  for (const FinishedPart& part : parts) MS_RETURN_NOT_OK(rows_->Drop(part.split));\n" + PUBLISH_PARTS,
    ),
    Mutation("the row log is not synced before its part is published", LEDGER, SYNC_ROWS, ""),
    Mutation("the row log is never dropped", LEDGER, DROP_ROWS, ""),
    Mutation(
        "an intent is written after its parts",
        LEDGER,
        PUBLISH_INTENT + PUBLISH_ERRORS + PUBLISH_PARTS,
        PUBLISH_ERRORS + PUBLISH_PARTS + PUBLISH_INTENT,
    ),
    Mutation(
        "the row log is not read",
        LEDGER,
        "return RowLog::Load(storage_, RowsFolder(), split);",
        "return LoadedRows{};",
    ),
    Mutation(
        "what a dead driver logged of a split is not synced",
        LEDGER,
        "MS_RETURN_NOT_OK(RowLog::SyncFound(storage_, RowsFolder(), split));",
        "continue;",
    ),
    Mutation(
        "adopted parts are not synced",
        LEDGER,
        """\
    MS_RETURN_NOT_OK(storage_.Sync(layout_.parts));
    MS_RETURN_NOT_OK(JournalParts(adopted));
""",
        "    MS_RETURN_NOT_OK(JournalParts(adopted));\n",
    ),
    Mutation(
        "a part is adopted without its intent",
        LEDGER,
        "  MS_ASSIGN_OR_RETURN(const auto intents, Intents());\n",
        "  if (!bytes.empty()) return CommittedPart{HashOf(bytes), bytes.size(), {}, {}};\n"
        "  MS_ASSIGN_OR_RETURN(const auto intents, Intents());\n",
    ),
    Mutation(
        "job.json is published before its plan",
        LEDGER,
        PUBLISH_PLAN + PUBLISH_JOB,
        NAME_PLAN + PUBLISH_JOB + PUBLISH_PLAN_LATE,
    ),
    Mutation(
        "unpublished files of two drivers share their names",
        LEDGER,
        'return fmt::format("{}/tmp/{:04d}-{}{}", layout_.state, epoch_, worker, name);',
        'return fmt::format("{}/tmp/{}{}", layout_.state, worker, name);',
    ),
    Mutation("a part that a retry replaces is not kept", LEDGER, KEEP_OLD, ""),
    Mutation(
        "a part is replaced before that is journaled",
        LEDGER,
        JOURNAL_REPLACE + EXCHANGE_PARTS,
        EXCHANGE_PARTS + JOURNAL_REPLACE,
    ),
    Mutation(
        "a retry that died is not looked for",
        LEDGER,
        "if (journaled == journaled_.end() || replacing_.contains(split)) {",
        "if (journaled == journaled_.end()) {",
    ),
    Mutation(
        "a retry's answers are not synced before they replace a part",
        LEDGER,
        "    MS_RETURN_NOT_OK(rows_->Sync(part.split));\n" + KEEP_OLD,
        KEEP_OLD,
    ),
    Mutation(
        "a retry's row logs stay",
        LEDGER,
        "  return storage_.Remove(RowsFolder());\n",
        "  return Status::OK();\n",
    ),
    Mutation(
        "a file is exchanged before it is synced",
        DISK,
        "    MS_RETURN_NOT_OK(SyncOne(from));\n    const int error = disk_.Exchange(from, to);\n",
        "    const int error = disk_.Exchange(from, to);\n",
    ),
    Mutation(
        "the folders of exchanged files are not synced",
        DISK,
        "    MS_RETURN_NOT_OK(SyncEntries(ParentOf(to)));\n    return SyncEntries(ParentOf(from));\n",
        "    return Status::OK();\n",
    ),
    Mutation(
        "the journal before is not synced",
        JOURNAL,
        "    MS_RETURN_NOT_OK(storage.Sync(PathOf(state, history.previous_epoch)));\n",
        "",
    ),
    Mutation("a journal's entries are not synced", JOURNAL, "  return writer_->Sync();\n", "  return Status::OK();\n"),
    Mutation(
        "a journal that was never begun is damage",
        JOURNAL,
        "      if (link) return Damaged(path, 0);\n",
        "      return Damaged(path, 0);\n",
    ),
    Mutation(
        "a record's check is not checked",
        RECORD,
        "  if (CheckOf(length, checked) != Get<std::uint32_t>(bytes, at + 4)) return std::nullopt;\n",
        "",
    ),
    Mutation(
        "a torn end is damage",
        RECORD,
        "return record.synced > place;",
        "return record.synced + place > 0;",
    ),
    Mutation(
        "a record calls synced what is only written",
        RECORD,
        "  Put(checked, synced_.load());\n",
        "  Put(checked, length_.load());\n",
    ),
    Mutation(
        "a log that failed is not written anew",
        ROW_LOG,
        "  for (Entry& entry : file.unsynced) {\n",
        "  for (Entry& entry : file.unsynced) {\n    if (&entry != &file.unsynced.back()) continue;\n",
    ),
    Mutation(
        "a row log is called synced and is not",
        ROW_LOG,
        'const Status synced = writer ? writer->Sync() : Status::IOError("the log\'s file failed");',
        "const Status synced = Status::OK();\n    { MutexLock lock(file.write_mutex); file.unsynced.clear(); }",
    ),
    Mutation(
        "a driver that was taken for dead exchanges a part all the same",
        LEDGER,
        "  MS_RETURN_NOT_OK(CheckLatest());\n  return storage_.Exchange(",
        "  return storage_.Exchange(",
    ),
    Mutation(
        "unpublished files of a driver before stay",
        LEDGER,
        '  MS_RETURN_NOT_OK(storage_.Remove(layout_.state + "/tmp"));',
        "",
    ),
    Mutation(
        "what was journaled between the loading and the journal's begin is passed over",
        LEDGER,
        "  MS_RETURN_NOT_OK(Replay(std::move(history)));\n  if (",
        "  if (",
    ),
]

REDUNDANT = [
    Mutation(
        "success.json does not wait for parts that others published",
        LEDGER,
        """\
  MS_RETURN_NOT_OK(storage_.Sync(layout_.parts));
  const std::string path = layout_.state + "/success.json";
""",
        '  const std::string path = layout_.state + "/success.json";\n',
        "parts are journaled, hence durable, at Begin(), and where another's stands, publishing syncs its folder",
    ),
    Mutation(
        "the scan goes on after a torn end",
        RECORD,
        """\
    scan.records.resize(records_before);
    scan.valid_length = where;
    break;
""",
        "",
        "a row log's records stand alone, so that one more is an answer less to compute; a journal syncs each",
    ),
    Mutation(
        "what a driver adds after it was taken for dead counts",
        JOURNAL,
        "      bytes.resize(link->length);\n",
        "",
        "a driver journals parts alone, and only ones that stand for good",
    ),
]
