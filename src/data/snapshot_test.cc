// SPDX-License-Identifier: Apache-2.0
// Which files an input names, what its columns are, and every way in which it can be refused.

#include "data/snapshot.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "arrow/array.h"
#include "arrow/builder.h"
#include "arrow/io/file.h"
#include "arrow/ipc/writer.h"
#include "arrow/table.h"
#include "data/json_value.h"
#include "data/readers_testing.h"
#include "parquet/arrow/writer.h"

namespace millstream {
namespace {

using Lines = std::vector<std::string>;

// A table of one column, from JSON values.
std::shared_ptr<arrow::Table> OneColumn(
    const std::string& name, const std::shared_ptr<arrow::DataType>& type, const Lines& values
) {
  auto builder = arrow::MakeBuilder(type).ValueOrDie();
  for (const std::string& value : values) EXPECT_TRUE(AppendJson(value, *builder).ok());
  return arrow::Table::Make(
      arrow::schema({arrow::field(name, type)}), {builder->Finish().ValueOrDie()}
  );
}

void WriteParquet(const TestFolder& folder, const std::string& name, const arrow::Table& table) {
  auto file = arrow::io::FileOutputStream::Open(folder.Path(name)).ValueOrDie();
  ASSERT_TRUE(parquet::arrow::WriteTable(table, arrow::default_memory_pool(), file, 4).ok());
  ASSERT_TRUE(file->Close().ok());
}

Lines Names(const InputOptions& options) {
  const auto snapshot = TakeSnapshot(options, {});
  if (!snapshot.ok()) return {snapshot.status().message()};
  Lines names;
  for (const InputFile& file : snapshot->files) names.push_back(file.name);
  return names;
}

TEST(SnapshotTest, PathsGlobsAndFoldersNameEachFileOnce) {
  const TestFolder folder;
  for (const char* name :
       {"b.txt",
        "a.txt",
        "data/2.txt",
        "data/10.txt",
        "data/deep/er/x.txt",
        "data/.hidden.txt",
        "data/_meta/y.txt",
        "out.millstream/z.txt",
        "odd[1].txt"}) {
    folder.Write(name, "row\n");
  }
  EXPECT_EQ(
      Names(folder.Options({"b.txt", "a.txt", "./b.txt", folder.Path("a.txt")})),
      (Lines{"a.txt", "b.txt"})
  );
  EXPECT_EQ(
      Names(folder.Options({"data"})), (Lines{"data/10.txt", "data/2.txt", "data/deep/er/x.txt"})
  );
  EXPECT_EQ(Names(folder.Options({"data/*.txt"})), (Lines{"data/10.txt", "data/2.txt"}));
  EXPECT_EQ(Names(folder.Options({"**/x.txt"})), (Lines{"data/deep/er/x.txt"}));
  EXPECT_EQ(
      Names(folder.Options({"data/**"})), (Lines{"data/10.txt", "data/2.txt", "data/deep/er/x.txt"})
  );
  EXPECT_EQ(Names(folder.Options({"[ab].tx?"})), (Lines{"a.txt", "b.txt"}));
  EXPECT_EQ(Names(folder.Options({"odd[1].txt"})), (Lines{"odd[1].txt"}));
  EXPECT_EQ(Names(folder.Options({"."})).size(), 6u);
}

TEST(SnapshotTest, LinksAreFollowedUnlessTheyFormACircle) {
  const TestFolder elsewhere;
  elsewhere.Write("sub/x.txt", "row\n");
  const TestFolder folder;
  folder.Write("in/a.txt", "row\n");
  std::filesystem::create_symlink(elsewhere.Path("sub"), folder.Path("in/link"));
  EXPECT_EQ(Names(folder.Options({"in"})), (Lines{"in/a.txt", "in/link/x.txt"}));
  EXPECT_EQ(Names(folder.Options({"**/x.txt"})), (Lines{"in/link/x.txt"}));
  std::filesystem::create_symlink(folder.Path("in"), folder.Path("in/circle"));
  EXPECT_NE(
      SnapshotError(folder.Options({"in"})).find("lead back to a folder above"), std::string::npos
  );
}

TEST(SnapshotTest, FilesOutsideTheJobsFolderKeepTheirPath) {
  const TestFolder elsewhere;
  elsewhere.Write("a.txt", "row\n");
  const TestFolder folder;
  EXPECT_EQ(Names(folder.Options({elsewhere.Path("a.txt")})), Lines{elsewhere.Path("a.txt")});
}

struct Refusal {
  const char* name;
  Lines paths;
  std::vector<std::pair<std::string, std::string>> files;
  std::string message;  // a part of it
};

class SnapshotRefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(SnapshotRefusalTest, SaysWhatIsWrong) {
  const TestFolder folder;
  for (const auto& [name, bytes] : GetParam().files) folder.Write(name, bytes);
  std::filesystem::create_directories(folder.Path("empty"));
  const std::string message = SnapshotError(folder.Options(GetParam().paths));
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Inputs,
    SnapshotRefusalTest,
    testing::Values(
        Refusal{"NoPaths", {}, {}, "the input names no files"},
        Refusal{"MissingFile", {"no.jsonl"}, {}, "input file no.jsonl does not exist"},
        Refusal{"EmptyGlob", {"no-*.jsonl"}, {}, "input pattern no-*.jsonl matches no file"},
        Refusal{"EmptyFolder", {"empty"}, {}, "input folder empty holds no files"},
        Refusal{"Remote", {"gs://bucket/x.jsonl"}, {}, "files of the local disk and s3:// paths"},
        Refusal{
            "UnknownSuffix", {"a.xlsx"}, {{"a.xlsx", "x"}}, "the suffix of a.xlsx names no format"
        },
        Refusal{
            "MixedFormats",
            {"a.jsonl", "b.csv"},
            {{"a.jsonl", "{}"}, {"b.csv", "a\n"}},
            "a.jsonl is jsonl and b.csv is csv"
        },
        Refusal{
            "ParquetUnderCsv",
            {"a.csv"},
            {{"a.csv", "PAR1xxxxPAR1"}},
            "a.csv has the suffix of csv text and seems to be a Parquet file"
        },
        Refusal{
            "CsvUnderParquet",
            {"a.parquet"},
            {{"a.parquet", "a,b\n1,2\n"}},
            "a.parquet has the suffix of a Parquet file and seems to be something else"
        },
        Refusal{"GzipUnderPlain", {"a.jsonl"}, {{"a.jsonl", Gzip("{}")}}, "seems to be gzip data"},
        Refusal{
            "PlainUnderGzip",
            {"a.jsonl.gz"},
            {{"a.jsonl.gz", "{\"a\":1}"}},
            "seems to be something else"
        },
        Refusal{"EmptyGzip", {"a.jsonl.gz"}, {{"a.jsonl.gz", ""}}, "seems to be an empty file"},
        Refusal{
            "ZstdUnderGzip", {"a.jsonl.gz"}, {{"a.jsonl.gz", Zstd("{}")}}, "seems to be zstd data"
        },
        Refusal{
            "Utf16",
            {"a.csv"},
            {{"a.csv",
              "\xFF\xFE"
              "a"}},
            "seems to be UTF-16 text"
        },
        Refusal{"Archive", {"a.json"}, {{"a.json", "PK\x03\x04"}}, "seems to be a ZIP archive"},
        Refusal{"EmptyParquet", {"a.parquet"}, {{"a.parquet", ""}}, "seems to be an empty file"},
        Refusal{
            "TruncatedParquet",
            {"a.parquet"},
            {{"a.parquet", "PAR1 and no footer"}},
            "a.parquet is no complete Parquet file"
        },
        Refusal{
            "TruncatedArrow",
            {"a.arrow"},
            {{"a.arrow", "ARROW1 and no footer"}},
            "a.arrow is no complete Arrow file"
        },
        Refusal{
            "CompressedParquet",
            {"a.parquet.gz"},
            {{"a.parquet.gz", "x"}},
            "only text formats can be read from .gz"
        },
        Refusal{
            "CutGzip",
            {"a.txt.gz"},
            {{"a.txt.gz", Gzip("some text\n").substr(0, 20)}},
            "ends in the middle of its compressed data"
        },
        Refusal{
            "GarbageAfterGzip",
            {"a.txt.gz"},
            {{"a.txt.gz", Gzip("text\n") + "garbage"}},
            "no gzip after its end"
        },
        Refusal{
            "GzipBomb",
            {"a.txt.gz"},
            {{"a.txt.gz", Gzip(std::string(std::size_t{8} << 20, 'a'))}},
            "decompression bomb"
        },
        Refusal{
            "ZstdBomb",
            {"a.txt.zst"},
            {{"a.txt.zst", Zstd(std::string(std::size_t{8} << 20, 'a'))}},
            "decompression bomb"
        },
        Refusal{
            "DoubleHeader", {"a.csv"}, {{"a.csv", "a,b,a\n1,2,3\n"}}, "two columns are named \"a\""
        },
        Refusal{
            "OpenHeader",
            {"a.csv"},
            {{"a.csv", "a,\"b\n1,2,3\n"}},
            "a quote is opened and never closed"
        },
        Refusal{
            "MixedJson",
            {"a.jsonl"},
            {{"a.jsonl", "{\"x\":1}\n{\"x\":\"a\"}\n"}},
            "column \"x\" has values of several types (1 number, 1 string)"
        },
        Refusal{
            "MixedDeep",
            {"a.jsonl"},
            {{"a.jsonl", "{\"x\":[{\"y\":1}]}\n{\"x\":[{\"y\":[]}]}\n"}},
            "column \"x[].y\" has values of several types (1 number, 1 list)"
        }
    ),
    [](const auto& refusal) { return std::string(refusal.param.name); }
);

TEST(SnapshotTest, TypesOfJsonColumns) {
  const TestFolder folder;
  folder.Write(
      "a.jsonl",
      "{\"int\":1,\"wide\":1,\"uint\":18446744073709551615,\"dec\":-18446744073709551615,\"huge\":"
      "1234567890123456789012345678901234567890,"
      "\"none\":null,\"empty\":[],\"map\":{},\"deep\":{\"a\":[{\"b\":1}]}}\n"
      "{\"int\":2,\"wide\":1.5,\"uint\":1,\"dec\":18446744073709551615,\"map\":{},\"deep\":{\"a\":["
      "{\"c\":true}]}}\n"
  );
  EXPECT_EQ(
      ColumnTypes(folder.Options({"a.jsonl"})),
      (Lines{
          "int: int64",
          "wide: double",
          "uint: uint64",
          "dec: decimal(38, 0)",
          "huge: json",
          "none: string",
          "empty: list<string>",
          "map: json",
          "deep: struct<a: list<struct<b: int64, c: bool>>>"
      })
  );
}

TEST(SnapshotTest, TypesOfCsvColumns) {
  const TestFolder folder;
  folder.Write(
      "a.csv",
      "int,num,zip,date,mixed,bool,nan,\n1,1,01234,2024-01-01,1,true,NaN,a\n2,NaN,1,2024-01-02,x,"
      "False,,b\n"
  );
  EXPECT_EQ(
      ColumnTypes(folder.Options({"a.csv"})),
      (Lines{
          "int: int64",
          "num: double",
          "zip: string",
          "date: string",
          "mixed: string",
          "bool: bool",
          "nan: string",
          "column_8: string"
      })
  );
}

TEST(SnapshotTest, FewMisfitsAreCountedAndBecomeErrorsOfTheirRows) {
  const TestFolder folder;
  std::string text;
  for (int i = 0; i < 39; ++i) text += "{\"n\":" + std::to_string(i) + "}\n";
  folder.Write("a.jsonl", text + "{\"n\":\"forty\"}\n");
  const auto snapshot = TakeSnapshot(folder.Options({"a.jsonl"}), {});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  ASSERT_EQ(snapshot->fits.size(), 1u);
  EXPECT_EQ(snapshot->fits[0].column, "n");
  EXPECT_EQ(snapshot->fits[0].num_values, 40);
  EXPECT_EQ(snapshot->fits[0].num_misfits, 1);
  EXPECT_EQ(
      ReadAll(folder.Options({"a.jsonl"})).back(),
      "40 bad_value: line 40: column \"n\" is a string, expected int64: \"forty\""
  );
}

TEST(SnapshotTest, DeclaredTypesSettleMixedColumns) {
  const TestFolder folder;
  folder.Write(
      "a.jsonl",
      "{\"x\":1,\"d\":\"2024-05-06\"}\n{\"x\":{\"a\": "
      "10000000000000000000000}}\n{\"x\":\"s\",\"d\":\"soon\"}\n"
  );
  InputOptions options = folder.Options({"a.jsonl"});
  options.schema = {{"x", nullptr}, {"d", arrow::date32()}, {"absent", arrow::int8()}};
  const Lines rows = ReadAll(options);
  EXPECT_EQ(rows[0], R"(1 {"x":1,"d":"2024-05-06","absent":null})");
  EXPECT_EQ(rows[1], R"(2 {"x":{"a":10000000000000000000000},"d":null,"absent":null})");
  EXPECT_EQ(rows[2], R"(3 bad_value: line 3: column "d" is "soon", expected date32)");
}

TEST(SnapshotTest, ColumnsCanBeChosenAndReordered) {
  const TestFolder folder;
  folder.Write("a.csv", "a,b,c\n1,2,3\n");
  InputOptions options = folder.Options({"a.csv"});
  options.columns = {"c", "a"};
  EXPECT_EQ(ReadAll(options), Lines{R"(1 {"c":3,"a":1})"});
  EXPECT_EQ(ReadAll(options, {.columns = {"a"}}), Lines{R"(1 {"a":1})"});
  options.columns = {"z"};
  EXPECT_EQ(
      SnapshotError(options),
      "`columns:` names \"z\", which the input does not have (it has a, b, c)"
  );
}

TEST(SnapshotTest, ColumnsAreTheUnionOfTheFiles) {
  const TestFolder folder;
  WriteParquet(folder, "a.parquet", *OneColumn("x", arrow::int32(), {"1", "null"}));
  WriteParquet(folder, "b.parquet", *OneColumn("x", arrow::float64(), {"0.5"}));
  WriteParquet(folder, "c.parquet", *OneColumn("y", arrow::utf8(), {"\"s\""}));
  EXPECT_EQ(
      ReadAll(folder.Options({"."})),
      (Lines{
          R"(0:1 {"x":1.0,"y":null})",
          R"(0:2 {"x":null,"y":null})",
          R"(1:1 {"x":0.5,"y":null})",
          R"(2:1 {"x":null,"y":"s"})"
      })
  );
  WriteParquet(folder, "d.parquet", *OneColumn("x", arrow::utf8(), {"\"s\""}));
  EXPECT_EQ(
      SnapshotError(folder.Options({"."})),
      "column \"x\" is double in a.parquet and string in d.parquet; say what it is in `schema:`"
  );
}

TEST(SnapshotTest, AnotherJobsOutputGivesItsOkRows) {
  const TestFolder folder;
  folder.Write(
      "out/part-000000.jsonl",
      "{\"id\":1,\"_status\":\"ok\",\"_error\":null,\"_source\":{\"file\":\"a\",\"record\":1,"
      "\"version\":1}}\n"
      "{\"id\":null,\"_status\":\"error\",\"_error\":{\"step\":\"read\"},\"_source\":{\"file\":"
      "\"a\",\"record\":2,\"version\":1}}\n"
  );
  InputOptions options = folder.Options({"out"});
  EXPECT_EQ(ReadAll(options), (Lines{R"(1 {"id":1})", "2 skipped"}));
  EXPECT_EQ(ReadAll(options, {.columns = {"id"}}), (Lines{R"(1 {"id":1})", "2 skipped"}));
  options.drop_job_columns = false;
  EXPECT_EQ(ReadAll(options).size(), 2u);
  EXPECT_EQ(ColumnTypes(options).size(), 4u);
}

TEST(SnapshotTest, SamplesOfLargeInputsStillCountEveryRecord) {
  const TestFolder folder;
  std::string text;
  for (int i = 0; i < 20000; ++i) {
    text += "{\"n\":" + (i == 5000 ? std::string("\"odd\"") : std::to_string(i)) + "}\n";
  }
  folder.Write("a.jsonl", text);
  const auto snapshot = TakeSnapshot(folder.Options({"a.jsonl"}), 3000, {});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->num_rows, 20000);
  EXPECT_TRUE(snapshot->fits.empty());  // what it has not seen becomes an error of its row
  EXPECT_EQ(snapshot->schema->field(0)->type()->id(), arrow::Type::INT64);
  EXPECT_EQ(snapshot->files[0].positions.size(), 6u);
  EXPECT_EQ(snapshot->files[0].positions.back(), text.size());
}

TEST(SnapshotTest, AChangedFileIsNoticedAndATouchedOneIsNot) {
  const TestFolder folder;
  folder.Write("a.txt", "one\n");
  auto snapshot = TakeSnapshot(folder.Options({"a.txt"}), {});
  ASSERT_TRUE(snapshot.ok());
  EXPECT_TRUE(CheckUnchanged(*snapshot).ok());
  snapshot->files[0].mtime_ns -= 1;
  EXPECT_TRUE(CheckUnchanged(*snapshot).ok());
  folder.Write("a.txt", "two\n");
  snapshot->files[0].mtime_ns -= 1;
  EXPECT_NE(CheckUnchanged(*snapshot).message().find("a.txt was changed"), std::string::npos);
  folder.Write("a.txt", "three\n");
  EXPECT_FALSE(CheckUnchanged(*snapshot).ok());
}

TEST(SnapshotTest, AChangedFileIsNotRead) {
  const TestFolder folder;
  folder.Write("a.txt", "one\n");
  const InputOptions options = folder.Options({"a.txt"});
  const auto snapshot = TakeSnapshot(options, {});
  ASSERT_TRUE(snapshot.ok());
  folder.Write("a.txt", "one\nmore\n");
  EXPECT_TRUE(IsConflict(ReadRows(*snapshot, options, {}).status()));
}

TEST(SnapshotTest, StopsWhenAsked) {
  const TestFolder folder;
  folder.Write("a.txt", "one\n");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(TakeSnapshot(folder.Options({"a.txt"}), stop.get_token()).status().IsCancelled());
}

}  // namespace
}  // namespace millstream
