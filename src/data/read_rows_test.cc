// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <fstream>

#include "arrow/array.h"
#include "data/json_value.h"
#include "data/reader.h"
#include "data/readers_testing.h"

namespace millstream {

namespace fs = std::filesystem;

TestFolder::TestFolder() {
  std::string name = (fs::temp_directory_path() / "millstream-readers-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "no folder for the test";
  path_ = name;
}

TestFolder::~TestFolder() {
  std::error_code error;
  fs::remove_all(path_, error);
}

void TestFolder::Write(const std::string& name, std::string_view bytes) const {
  fs::create_directories((path_ / name).parent_path());
  std::ofstream(path_ / name, std::ios::binary) << bytes;
}

InputOptions TestFolder::Options(std::vector<std::string> paths) const {
  InputOptions options;
  options.paths = std::move(paths);
  options.base_folder = path_.string();
  return options;
}

namespace {

std::string RowText(const arrow::RecordBatch& batch, std::int64_t row) {
  std::string text = "{";
  for (int i = 0; i < batch.num_columns(); ++i) {
    if (i > 0) text += ",";
    text += "\"" + batch.column_name(i) + "\":";
    const bool is_json = IsJsonText(*batch.schema()->field(i)) && batch.column(i)->IsValid(row);
    if (is_json) {
      text += static_cast<const arrow::StringArray&>(*batch.column(i)).GetView(row);
    } else {
      EXPECT_TRUE(WriteJson(*batch.column(i), row, text).ok());
    }
  }
  return text + "}";
}

void AppendRows(const InputBatch& batch, std::vector<std::string>& rows, bool with_file) {
  EXPECT_TRUE(batch.columns->ValidateFull().ok());
  std::size_t error = 0;
  std::size_t skipped = 0;
  for (std::int64_t row = 0; row < batch.columns->num_rows(); ++row) {
    std::string text = with_file ? std::to_string(batch.file) + ":" : "";
    text += std::to_string(batch.first_record + row) + " ";
    if (error < batch.errors.size() && batch.errors[error].first == row) {
      for (const auto& column : batch.columns->columns()) EXPECT_TRUE(column->IsNull(row));
      const RowError& why = batch.errors[error++].second;
      text += why.code + ": " + why.message;
    } else if (skipped < batch.skipped.size() && batch.skipped[skipped] == row) {
      ++skipped;
      text += "skipped";
    } else {
      text += RowText(*batch.columns, row);
    }
    rows.push_back(std::move(text));
  }
  EXPECT_EQ(error, batch.errors.size());
  EXPECT_EQ(skipped, batch.skipped.size());
}

}  // namespace

std::vector<std::string> RowTexts(const InputBatch& batch) {
  std::vector<std::string> rows;
  AppendRows(batch, rows, false);
  return rows;
}

Result<std::vector<std::string>> ReadRows(
    const Snapshot& snapshot, const InputOptions& options, const ReadSettings& settings
) {
  std::vector<std::string> rows;
  SplitReader reader(snapshot, options, settings.columns, settings.batch_rows);
  std::int64_t number = 0;
  for (const Split& split : CutSplits(snapshot, settings.split_rows, settings.split_bytes)) {
    EXPECT_EQ(split.number, number++);
    EXPECT_LE(split.num_rows, settings.split_rows);
    MS_RETURN_NOT_OK(reader.Open(split));
    std::int64_t num_rows = 0;
    for (;;) {
      MS_ASSIGN_OR_RETURN(const auto batch, reader.Next());
      if (!batch) break;
      EXPECT_LE(batch->columns->num_rows(), settings.batch_rows);
      EXPECT_GT(batch->columns->num_rows(), 0);
      num_rows += batch->columns->num_rows();
      AppendRows(*batch, rows, snapshot.files.size() > 1);
    }
    EXPECT_EQ(num_rows, split.num_rows);
  }
  EXPECT_EQ(static_cast<std::int64_t>(rows.size()), snapshot.num_rows);
  return rows;
}

std::vector<std::string> ReadAll(const InputOptions& options, const ReadSettings& settings) {
  const auto snapshot = TakeSnapshot(options, {});
  if (!snapshot.ok()) return {"failed: " + snapshot.status().message()};
  auto rows = ReadRows(*snapshot, options, settings);
  if (!rows.ok()) return {"failed: " + rows.status().message()};
  return std::move(rows).ValueUnsafe();
}

std::string SnapshotError(const InputOptions& options) {
  const auto snapshot = TakeSnapshot(options, {});
  return snapshot.ok() ? "" : snapshot.status().message();
}

std::vector<std::string> ColumnTypes(const InputOptions& options) {
  const auto snapshot = TakeSnapshot(options, {});
  if (!snapshot.ok()) return {"failed: " + snapshot.status().message()};
  std::vector<std::string> types;
  for (const auto& field : snapshot->schema->fields()) {
    types.push_back(
        field->name() + ": " + (IsJsonText(*field) ? "json" : TypeName(*field->type()))
    );
  }
  return types;
}

std::string Gzip(std::string_view text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

}  // namespace millstream
