// SPDX-License-Identifier: Apache-2.0
#include "data/reader.h"

#include <algorithm>
#include <exception>

#include "arrow/array/array_binary.h"
#include "base/check.h"
#include "data/file_reader.h"
#include "data/listing.h"
#include "data/table_rows.h"

namespace millstream {
namespace {

constexpr const char* kStatusColumn = "_status";
constexpr std::string_view kOkStatus = "ok";

}  // namespace

Result<std::unique_ptr<FileReader>> OpenFile(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
) {
  MS_RETURN_NOT_OK(CheckFile(file));
  switch (file.format) {
    case FileFormat::kParquet:
      return OpenParquetFile(file, std::move(schema));
    case FileFormat::kArrowFile:
    case FileFormat::kArrowStream:
      return OpenArrowFile(file, std::move(schema));
    default:
      return OpenTextFile(file, std::move(schema));
  }
}

struct SplitReader::State {
  State(
      const Snapshot& the_snapshot,
      std::vector<std::string> names,
      std::int64_t rows,
      const UnreadRows* the_unread
  )
      : snapshot(the_snapshot),
        column_names(std::move(names)),
        batch_rows(std::max<std::int64_t>(rows, 1)),
        unread(the_unread) {}

  // The columns that are read: those asked for, and the status of another job's rows.
  Status ChooseColumns() {
    arrow::FieldVector fields;
    for (const std::string& name : column_names) {
      auto field = snapshot.schema->GetFieldByName(name);
      if (field == nullptr) return Status::Invalid("the input has no column \"", name, "\"");
      fields.push_back(std::move(field));
    }
    if (column_names.empty()) fields = snapshot.schema->fields();
    num_columns = static_cast<int>(fields.size());
    if (snapshot.is_job_output) {
      const auto asked = std::find_if(fields.begin(), fields.end(), [](const auto& field) {
        return field->name() == kStatusColumn;
      });
      status_column = static_cast<int>(asked - fields.begin());
      if (asked == fields.end()) {
        fields.push_back(arrow::field(kStatusColumn, arrow::utf8()));
      } else if ((*asked)->type()->id() != arrow::Type::STRING) {
        status_column = -1;  // declared as something else: no status of ours
      }
    }
    schema = arrow::schema(std::move(fields));
    return Status::OK();
  }

  // Rows from `next` on, at least one and at most so many.
  Result<RowBatch> Read(std::int64_t max_rows) {
    if (unread != nullptr) {
      auto left_out = unread->NextUnread(next);
      if (left_out && left_out->first == next) {
        MS_ASSIGN_OR_RETURN(RowBatch row, UnreadableRows(schema, next.record, 1, ""));
        row.errors.front().second = std::move(left_out->second);
        return row;
      }
      if (left_out) max_rows = std::min(max_rows, left_out->first.record - next.record);
    }
    MS_RETURN_NOT_OK(MoveTo(next));
    auto rows = reader->Read(max_rows);
    if (rows.ok()) {
      next_record += rows->columns->num_rows();
    } else {
      reader.reset();
    }
    return rows;
  }

  Status MoveTo(const RowId& row) {
    if (reader == nullptr || file != row.file) {
      reader.reset();
      file = row.file;
      MS_ASSIGN_OR_RETURN(reader, OpenFile(snapshot.files[static_cast<std::size_t>(file)], schema));
      next_record = 0;
    }
    if (next_record != row.record) MS_RETURN_NOT_OK(reader->Seek(row.record));
    next_record = row.record;
    return Status::OK();
  }

  InputBatch ToInput(RowBatch rows) {
    InputBatch batch{std::move(rows.columns), next.file, next.record, std::move(rows.errors), {}};
    if (status_column < 0) return batch;
    const auto& status =
        static_cast<const arrow::StringArray&>(*batch.columns->column(status_column));
    for (std::int64_t row = 0; row < status.length(); ++row) {
      if (status.IsValid(row) && status.GetView(row) != kOkStatus) batch.skipped.push_back(row);
    }
    if (num_columns < schema->num_fields()) {
      batch.columns = batch.columns->RemoveColumn(num_columns).ValueOrDie();
    }
    return batch;
  }

  const Snapshot& snapshot;
  const std::vector<std::string> column_names;
  const std::int64_t batch_rows;
  const UnreadRows* const unread;

  std::shared_ptr<arrow::Schema> schema;
  int num_columns = 0;
  int status_column = -1;
  Split split;
  std::size_t next_range = 0;
  std::int64_t left_in_range = 0;
  RowId next;  // the first of them
  std::unique_ptr<FileReader> reader;
  std::int32_t file = -1;
  std::int64_t next_record = 0;  // where `reader` stands
};

SplitReader::SplitReader(
    const Snapshot& snapshot,
    const InputOptions&,
    std::vector<std::string> columns,
    std::int64_t batch_rows,
    const UnreadRows* unread
)
    : state_(std::make_unique<State>(snapshot, std::move(columns), batch_rows, unread)) {}

SplitReader::~SplitReader() = default;

Status SplitReader::Open(const Split& split) {
  if (state_->schema == nullptr) MS_RETURN_NOT_OK(state_->ChooseColumns());
  state_->split = split;
  state_->next_range = 0;
  state_->left_in_range = 0;
  return Status::OK();
}

Result<std::optional<InputBatch>> SplitReader::Next() {
  State& state = *state_;
  try {
    if (state.left_in_range == 0) {
      if (state.next_range == state.split.ranges.size()) return std::nullopt;
      const RecordRange& range = state.split.ranges[state.next_range++];
      MS_CHECK(range.num_records > 0);
      state.next = {range.file, range.first_record};
      state.left_in_range = range.num_records;
    }
    MS_ASSIGN_OR_RETURN(RowBatch rows, state.Read(std::min(state.batch_rows, state.left_in_range)));
    InputBatch batch = state.ToInput(std::move(rows));
    state.left_in_range -= batch.columns->num_rows();
    state.next.record += batch.columns->num_rows();
    return batch;
  } catch (const std::bad_alloc&) {
    return Status::OutOfMemory("no memory to read the input");
  } catch (const std::exception& error) {
    return Status::UnknownError("cannot read the input: ", error.what());
  }
}

}  // namespace millstream
