// SPDX-License-Identifier: Apache-2.0
#include "data/writer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "arrow/array.h"
#include "arrow/array/builder_binary.h"
#include "arrow/io/file.h"
#include "arrow/io/memory.h"
#include "arrow/type.h"
#include "data/digest.h"
#include "data/input.h"
#include "data/json_value.h"
#include "data/testing.h"
#include "storage/testing.h"

namespace millstream {
namespace {

using BatchPtr = std::shared_ptr<arrow::RecordBatch>;

constexpr OutputFormat kFormats[] = {
    OutputFormat::kParquet, OutputFormat::kJsonl, OutputFormat::kCsv, OutputFormat::kArrow
};

std::string FormatTestName(const testing::TestParamInfo<OutputFormat>& info) {
  return std::string(OutputFormatName(info.param));
}

Status WriteTo(
    const std::string& path,
    OutputFormat format,
    const std::shared_ptr<arrow::Schema>& schema,
    const std::vector<BatchPtr>& batches
) {
  MS_ASSIGN_OR_RETURN(const auto sink, arrow::io::FileOutputStream::Open(path));
  MS_ASSIGN_OR_RETURN(
      const auto writer, MakeTableWriter(format, schema, sink, {{"millstream.split", "7"}})
  );
  for (const auto& batch : batches) MS_RETURN_NOT_OK(writer->Write(*batch));
  MS_RETURN_NOT_OK(writer->Close());
  return sink->Close();
}

Result<std::vector<BatchPtr>> ReadAll(
    const std::string& path, OutputFormat format, const std::shared_ptr<arrow::Schema>& schema
) {
  MS_ASSIGN_OR_RETURN(const auto file, arrow::io::ReadableFile::Open(path));
  MS_ASSIGN_OR_RETURN(const auto reader, OpenWritten(format, file, path, schema));
  std::vector<BatchPtr> batches;
  for (BatchPtr batch;;) {
    MS_RETURN_NOT_OK(reader->ReadNext(&batch));
    if (batch == nullptr) return batches;
    MS_RETURN_NOT_OK(batch->ValidateFull());
    batches.push_back(batch);
  }
}

std::string DigestOf(
    const std::shared_ptr<arrow::Schema>& schema, const std::vector<BatchPtr>& batches
) {
  RowDigest digest(schema);
  for (const auto& batch : batches) {
    const Status status = digest.Add(*batch);
    EXPECT_TRUE(status.ok()) << status;
  }
  return digest.Hex();
}

// Each row as JSON: what must be the same before and after, however it is held.
std::vector<std::string> RowsAsJson(const std::vector<BatchPtr>& batches) {
  std::vector<std::string> rows;
  for (const auto& batch : batches) {
    for (std::int64_t i = 0; i < batch->num_rows(); ++i) {
      std::string& row = rows.emplace_back();
      for (const auto& column : batch->columns()) {
        EXPECT_TRUE(WriteJson(*column, i, row).ok());
        row += ' ';
      }
    }
  }
  return rows;
}

std::string FileText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class WriterTest : public testing::TestWithParam<OutputFormat> {
 protected:
  const TempFolder folder_;
  const std::string path_ = folder_ / "file";
};
INSTANTIATE_TEST_SUITE_P(Formats, WriterTest, testing::ValuesIn(kFormats), FormatTestName);

TEST_P(WriterTest, RandomTablesComeBackExactly) {
  TestRandom random(GetParam() == OutputFormat::kParquet ? 1 : 2);
  for (int round = 0; round < 60; ++round) {
    const auto schema = RandomSchema(3, random);
    std::vector<BatchPtr> batches;
    batches.reserve(3);
    for (int i = 0; i < 3; ++i) {
      batches.push_back(RandomBatch(schema, static_cast<std::int64_t>(random() % 40), random));
    }
    const Status written = WriteTo(path_, GetParam(), schema, batches);
    ASSERT_TRUE(written.ok()) << written << schema->ToString();
    const auto back = ReadAll(path_, GetParam(), schema);
    ASSERT_TRUE(back.ok()) << back.status() << schema->ToString();
    for (const auto& batch : *back) ASSERT_TRUE(batch->schema()->Equals(*schema));
    ASSERT_EQ(RowsAsJson(batches), RowsAsJson(*back)) << schema->ToString();
    ASSERT_EQ(DigestOf(schema, batches), DigestOf(schema, *back)) << schema->ToString();
  }
}

TEST_P(WriterTest, TableWithoutRowsIsAWholeFile) {
  const auto schema = arrow::schema(
      {arrow::field("a", arrow::utf8()), arrow::field("b", arrow::list(arrow::int64()))}
  );
  ASSERT_TRUE(WriteTo(path_, GetParam(), schema, {}).ok());
  const auto back = ReadAll(path_, GetParam(), schema);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(RowsAsJson(*back).empty());
}

TEST_P(WriterTest, ColumnOfNullsOnlyComesBack) {
  const auto schema =
      arrow::schema({arrow::field("a", arrow::null()), arrow::field("b", arrow::utf8())});
  const auto batch = arrow::RecordBatch::Make(
      schema,
      3,
      {std::make_shared<arrow::NullArray>(3), arrow::MakeArrayOfNull(arrow::utf8(), 3).ValueOrDie()}
  );
  ASSERT_TRUE(WriteTo(path_, GetParam(), schema, {batch}).ok());
  const auto back = ReadAll(path_, GetParam(), schema);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(RowsAsJson(*back), RowsAsJson({batch}));
}

TEST_P(WriterTest, FileOfOtherColumnsIsRefused) {
  TestRandom random(3);
  const auto schema = arrow::schema({arrow::field("a", arrow::int64())});
  const auto other = arrow::schema({arrow::field("b", arrow::int64())});
  ASSERT_TRUE(WriteTo(path_, GetParam(), schema, {RandomBatch(schema, 5, random)}).ok());
  EXPECT_FALSE(ReadAll(path_, GetParam(), other).ok());
}

TEST_P(WriterTest, CutOffFileIsRefused) {
  TestRandom random(4);
  const auto schema =
      arrow::schema({arrow::field("a", arrow::utf8()), arrow::field("b", arrow::int64())});
  ASSERT_TRUE(WriteTo(path_, GetParam(), schema, {RandomBatch(schema, 50, random)}).ok());
  const std::string text = FileText(path_);
  std::ofstream(path_, std::ios::binary | std::ios::trunc) << text.substr(0, text.size() - 1);
  EXPECT_FALSE(ReadAll(path_, GetParam(), schema).ok());
}

TEST_P(WriterTest, FailureOfTheSinkIsReported) {
  TestRandom random(5);
  const auto local = MakeLocalStorage();
  const auto schema = arrow::schema({arrow::field("a", arrow::utf8())});
  const auto batch = RandomBatch(schema, 100, random);
  FaultyStorage faulty(*local);
  const auto sink = faulty.Create(path_).ValueOrDie();
  faulty.FailAt(1, ENOSPC);
  const auto write = [&]() -> Status {
    MS_ASSIGN_OR_RETURN(const auto writer, MakeTableWriter(GetParam(), schema, sink, {}));
    MS_RETURN_NOT_OK(writer->Write(*batch));
    return writer->Close();
  };
  const Status status = write();
  EXPECT_TRUE(IsDiskFull(status)) << status;
}

TEST(WriterFormatTest, NamesAndSuffixes) {
  for (const OutputFormat format : kFormats) {
    EXPECT_EQ(OutputFormatFromName(OutputFormatName(format)).ValueOrDie(), format);
    EXPECT_EQ(OutputFormatSuffix(format), std::string(1, '.').append(OutputFormatName(format)));
  }
  EXPECT_EQ(
      OutputFormatFromName("xlsx").status().message(),
      "unknown output format \"xlsx\": use parquet, jsonl, csv, arrow or openai-batch"
  );
}

TEST(WriterFormatTest, TypesThatAFormatCannotHoldAreNamed) {
  const auto sink = arrow::io::BufferOutputStream::Create().ValueOrDie();
  const auto intervals = arrow::schema({arrow::field("x", arrow::month_interval())});
  EXPECT_EQ(
      MakeTableWriter(OutputFormat::kCsv, intervals, sink, {}).status().message(),
      "column x has type month_interval, which csv cannot hold: leave it out, set another type, or "
      "choose "
      "format: arrow"
  );
  EXPECT_FALSE(MakeTableWriter(OutputFormat::kJsonl, intervals, sink, {}).ok());
  EXPECT_FALSE(MakeTableWriter(OutputFormat::kParquet, intervals, sink, {}).ok());
  EXPECT_TRUE(MakeTableWriter(OutputFormat::kArrow, intervals, sink, {}).ok());
}

BatchPtr OddTexts() {
  const auto schema = arrow::schema(
      {arrow::field("a,b", arrow::utf8()), arrow::field("n", arrow::float64()), JsonTextField("j")}
  );
  const std::vector<std::vector<std::string>> rows = {
      {R"("")", "1.0", R"("{\"k\": [1, 2.50]}")"},
      {"null", "null", "null"},
      {R"(" x ")", "1e100", R"("null")"},
      {R"("a\"b\nc,d\r\u0000é")", "\"NaN\"", R"("not json")"}
  };
  std::vector<std::unique_ptr<arrow::ArrayBuilder>> builders;
  for (const auto& field : schema->fields()) {
    builders.push_back(arrow::MakeBuilder(field->type()).ValueOrDie());
  }
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) EXPECT_TRUE(AppendJson(row[i], *builders[i]).ok());
  }
  arrow::ArrayVector columns;
  for (const auto& builder : builders) columns.push_back(builder->Finish().ValueOrDie());
  return arrow::RecordBatch::Make(schema, static_cast<std::int64_t>(rows.size()), columns);
}

TEST(WriterFormatTest, CsvIsAsDocumented) {
  const TempFolder folder;
  const BatchPtr batch = OddTexts();
  ASSERT_TRUE(WriteTo(folder / "x", OutputFormat::kCsv, batch->schema(), {batch}).ok());
  const std::string nul(1, '\0');
  EXPECT_EQ(
      FileText(folder / "x"),
      "\"a,b\",n,j\n"
      "\"\",1.0,\"{\"\"k\"\": [1, 2.50]}\"\n"
      ",,\n"
      " x ,1e+100,null\n"
      "\"a\"\"b\nc,d\r" +
          nul + "é\",NaN,not json\n"
  );
}

TEST(WriterFormatTest, JsonlIsAsDocumented) {
  const TempFolder folder;
  const BatchPtr batch = OddTexts();
  ASSERT_TRUE(WriteTo(folder / "x", OutputFormat::kJsonl, batch->schema(), {batch}).ok());
  EXPECT_EQ(FileText(folder / "x"), R"({"a,b":"","n":1.0,"j":{"k":[1,2.50]}}
{"a,b":null,"n":null,"j":null}
{"a,b":" x ","n":1e+100,"j":null}
{"a,b":"a\"b\nc,d\r\u0000é","n":"NaN","j":"not json"}
)");
}

TEST(WriterFormatTest, JsonTextsHaveOneDigestInEveryFormat) {
  const TempFolder folder;
  const BatchPtr batch = OddTexts();
  const std::string digest = DigestOf(batch->schema(), {batch});
  for (const OutputFormat format : kFormats) {
    ASSERT_TRUE(WriteTo(folder / "x", format, batch->schema(), {batch}).ok());
    const auto back = ReadAll(folder / "x", format, batch->schema());
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(DigestOf(batch->schema(), *back), digest) << OutputFormatName(format);
  }
}

BatchPtr TableOf(std::string_view type, const std::vector<const char*>& rows) {
  const auto builder = arrow::MakeBuilderExactIndex(ParseType(type).ValueOrDie()).ValueOrDie();
  for (const char* row : rows) {
    const Status status = AppendJson(row, *builder);
    EXPECT_TRUE(status.ok()) << row << status;
  }
  return arrow::RecordBatch::FromStructArray(builder->Finish().ValueOrDie()).ValueOrDie();
}

constexpr char kManyTypes[] =
    "struct<text: string, \"odd, \"\"name\"\"\": int64, u: uint64, d: double, f: float, b: bool, "
    "bytes: binary, "
    "money: decimal(38, 10), day: date32, time: time64[us], local: timestamp[us], "
    "instant: timestamp[ms, America/New_York], span: duration[us], list: list<string>, "
    "struct: struct<a: int64, b: list<double>>, map: map<string, int64>, pairs: map<int64, "
    "string>, "
    "dict: dictionary<string, int32>>";

const std::vector<const char*> kManyValues = {
    R"({"text": "plain", "odd, \"name\"": 1, "u": 0, "d": 1, "f": 0.1, "b": true, "bytes": "", "money": 0,
        "day": "1970-01-01", "time": "00:00:00", "local": "1970-01-01", "instant": "1970-01-01T00:00:00Z", "span": 0,
        "list": [], "struct": {"a": 1, "b": [1.5]}, "map": {}, "pairs": [], "dict": "x"})",
    R"({"text": "", "odd, \"name\"": -9223372036854775808, "u": 18446744073709551615, "d": -0.0, "f": 3.4028235e38,
        "b": false, "bytes": "AP/+", "money": 1234567890123456789012345678.0123456789, "day": "9999-12-31",
        "time": "23:59:59.999999", "local": "0001-01-01T00:00:00.000001", "instant": "2024-07-01T12:00:00.001-04:00",
        "span": -1, "list": ["", null, "a,b", "\"\n"], "struct": {"a": null, "b": []}, "map": {"": 1, "k": null},
        "pairs": [[1, "a"], [-2, null]], "dict": "y"})",
    "{}",
    R"({"text": "\"q\",\n\r\nx\té😀", "odd, \"name\"": 9007199254740993, "u": 9007199254740993, "d": 5e-324,
        "f": 1e-45, "b": true, "bytes": "bnVsbAA=", "money": -0.0000000001, "day": "1600-02-29", "time": "12:00:00",
        "local": "2024-02-29T23:59:59.5", "instant": "1969-12-31T23:59:59.999Z", "span": 86400000001, "list": [" "],
        "struct": {"a": 2, "b": [0.1, null, 1e300]}, "map": {"a\"b": 3}, "pairs": [], "dict": "x"})",
    R"({"text": " 00123", "odd, \"name\"": 0, "u": 7, "d": "NaN", "f": "-Infinity", "money": 0.5,
        "list": ["null"], "map": {"x": -1}, "pairs": [[0, ""]], "dict": ""})"
};

TEST(WriterFormatTest, PythonsReadersFindTheSameValues) {
  const BatchPtr table = TableOf(kManyTypes, kManyValues);
  const TempFolder folder;
  for (const OutputFormat format : kFormats) {
    const std::string name = "written" + std::string(OutputFormatSuffix(format));
    const Status status = WriteTo(folder / name, format, table->schema(), {table});
    ASSERT_TRUE(status.ok()) << status;
  }
  const std::string root = MS_SOURCE_DIR;
  const std::string command =
      root + "/.deps/venv/bin/python " + root + "/src/data/written_oracle.py " + folder.path();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST(WriterFormatTest, OneColumnCsvKeepsItsNulls) {
  const TempFolder folder;
  const auto schema = arrow::schema({arrow::field("a", arrow::utf8())});
  arrow::StringBuilder builder;
  ASSERT_TRUE(builder.AppendNull().ok());
  ASSERT_TRUE(builder.Append("").ok());
  ASSERT_TRUE(builder.AppendNull().ok());
  const auto batch = arrow::RecordBatch::Make(schema, 3, {builder.Finish().ValueOrDie()});
  ASSERT_TRUE(WriteTo(folder / "x", OutputFormat::kCsv, schema, {batch}).ok());
  EXPECT_EQ(
      RowsAsJson(ReadAll(folder / "x", OutputFormat::kCsv, schema).ValueOrDie()),
      RowsAsJson({batch})
  );
}

TEST(WriterFormatTest, RowLongerThanTheReadBufferComesBack) {
  const TempFolder folder;
  const auto schema =
      arrow::schema({arrow::field("a", arrow::utf8()), arrow::field("b", arrow::utf8())});
  arrow::StringBuilder builder;
  ASSERT_TRUE(builder.Append(std::string(1'500'000, '"')).ok());
  ASSERT_TRUE(builder.Append("x").ok());
  const auto column = builder.Finish().ValueOrDie();
  const auto batch = arrow::RecordBatch::Make(schema, 2, {column, column});
  for (const OutputFormat format : {OutputFormat::kCsv, OutputFormat::kJsonl}) {
    ASSERT_TRUE(WriteTo(folder / "x", format, schema, {batch}).ok());
    EXPECT_EQ(RowsAsJson(ReadAll(folder / "x", format, schema).ValueOrDie()), RowsAsJson({batch}));
  }
}

}  // namespace
}  // namespace millstream
