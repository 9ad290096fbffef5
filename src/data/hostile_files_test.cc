// SPDX-License-Identifier: Apache-2.0
// Files that are cut, garbled or made to harm: every record still comes out as a row or an error,
// nothing crashes, and the outcome depends on the file alone.

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "arrow/array/concatenate.h"
#include "arrow/builder.h"
#include "arrow/io/file.h"
#include "arrow/ipc/writer.h"
#include "arrow/table.h"
#include "data/readers_testing.h"
#include "data/text_scanner.h"
#include "parquet/arrow/writer.h"
#include "parquet/properties.h"

namespace millstream {
namespace {

using Lines = std::vector<std::string>;

std::string Bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string OracleBytes(const std::string& name) {
  return Bytes(std::string(MS_TEST_DATA) + "/readers/" + name);
}

// Reads in two ways, which must agree.
Lines ReadTwice(const InputOptions& options) {
  const Lines rows = ReadAll(options);
  EXPECT_EQ(ReadAll(options, {.batch_rows = 3, .split_rows = 4, .columns = {}}), rows);
  return rows;
}

class HostileTextTest : public testing::TestWithParam<const char*> {};

constexpr const char* kSmallTexts[] = {"a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"};

std::string SmallText(const std::string& name) {
  if (name == "a.jsonl") {
    return "{\"a\":\"x\\u00e9\",\"b\":[1,{\"c\":null}]}\r\n\n{\"a\":"
           "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\",\"b\":[]}\n";
  }
  if (name == "a.json") {
    return "[{\"a\":\"x,]\\\"\",\"b\":[1]},\n{\"a\":\"\xC3\xA9\xE2\x82\xAC\",\"b\":[2]}]";
  }
  if (name == "a.csv") return "a,b\r\n\"x\"\"\ny\",1\r\n\xC3\xA9,\"\"\n,2.5\n";
  if (name == "a.tsv") return "a\tb\n\"x\ty\"\t1\n\xC3\xA9\t\n";
  return "one\r\n\n\xC3\xA9\xE2\x82\xAC\nlast";
}

TEST_P(HostileTextTest, CutAnywhere) {
  const std::string text = SmallText(GetParam());
  for (std::size_t size = 0; size <= text.size(); ++size) {
    const TestFolder folder;
    folder.Write(GetParam(), text.substr(0, size));
    ReadTwice(folder.Options({GetParam()}));
  }
}

TEST_P(HostileTextTest, AnyByteReplaced) {
  const std::string text = SmallText(GetParam());
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (const char byte : {'\xFF', '\x80', '\0', '"', '\n', '\\', '[', '}'}) {
      const TestFolder folder;
      std::string changed = text;
      changed[i] = byte;
      folder.Write(GetParam(), changed);
      ReadTwice(folder.Options({GetParam()}));
    }
  }
}

TEST_P(HostileTextTest, RandomBytes) {
  std::mt19937 random(7);
  for (int round = 0; round < 100; ++round) {
    const TestFolder folder;
    std::string bytes(random() % 300, '\0');
    const std::string_view alphabet = "{}[]\",:\\\n\r\t 01ae-.\xC3\xA9\xFF";
    for (char& c : bytes) {
      c = round % 2 == 0 ? static_cast<char>(random()) : alphabet[random() % alphabet.size()];
    }
    folder.Write(GetParam(), bytes);
    ReadTwice(folder.Options({GetParam()}));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Formats,
    HostileTextTest,
    testing::ValuesIn(kSmallTexts),
    [](const auto& name) { return std::string(name.param).substr(2); }
);

TEST(HostileFilesTest, CutCompressedFilesAreRefused) {
  for (const bool gzip : {true, false}) {
    const std::string whole = gzip ? Gzip("one\ntwo\nthree\n") : Zstd("one\ntwo\nthree\n");
    const std::string name = gzip ? "a.txt.gz" : "a.txt.zst";
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const TestFolder folder;
      folder.Write(name, whole.substr(0, size));
      EXPECT_NE(SnapshotError(folder.Options({name})), "") << size;
    }
  }
}

TEST(HostileFilesTest, CutTablesAreRefusedOrKeepTheirRowCount) {
  for (const std::string name : {"types.parquet", "types.arrow", "extras.arrows"}) {
    const std::string whole = OracleBytes(name);
    const std::size_t step = name == "extras.arrows" ? 7 : 997;
    for (std::size_t size = 0; size < whole.size(); size += step) {
      const TestFolder folder;
      folder.Write(name, whole.substr(0, size));
      const std::string error = SnapshotError(folder.Options({name}));
      if (name != "extras.arrows") {
        EXPECT_NE(error, "") << name << " " << size;
      }
      if (error.empty()) ReadAll(folder.Options({name}));
    }
  }
}

TEST(HostileFilesTest, GarbledTablesNeverCrash) {
  std::mt19937 random(11);
  for (const std::string name : {"types.parquet", "types.arrow", "extras.arrows"}) {
    const std::string whole = OracleBytes(name);
    for (int round = 0; round < 60; ++round) {
      const TestFolder folder;
      std::string bytes = whole;
      for (int i = 0; i < 1 + round % 3; ++i) {
        bytes[random() % bytes.size()] = static_cast<char>(random());
      }
      folder.Write(name, bytes);
      ReadAll(folder.Options({name}));
    }
  }
}

TEST(HostileFilesTest, ARecordOver32MiBIsAnErrorAndTheRestGoOn) {
  const std::string large(kRecordBytesMax + 1, 'x');
  const std::string fits(kRecordBytesMax - 10, 'x');
  const TestFolder folder;
  folder.Write("a.txt", "one\n" + large + "\n" + fits + "\nfour\n");
  folder.Write("a.csv", "a\n1\n\"" + large + "\n\"\n3\n");
  folder.Write("a.json", "[{\"a\":1},{\"a\":\"" + large + "\"},\n{\"a\":3}]");
  const auto text = ReadAll(folder.Options({"a.txt"}));
  ASSERT_EQ(text.size(), 4u);
  EXPECT_EQ(text[1], "2 record_too_large: line 2: the record is longer than 32 MiB");
  EXPECT_EQ(text[2].size(), fits.size() + std::string("3 {\"text\":\"\"}").size());
  EXPECT_EQ(text[3], R"(4 {"text":"four"})");
  const Lines rows{
      R"(1 {"a":1})", "2 record_too_large: line 3: the record is longer than 32 MiB", R"(3 {"a":3})"
  };
  EXPECT_EQ(ReadAll(folder.Options({"a.csv"})), rows);
  EXPECT_EQ(ReadAll(folder.Options({"a.json"}))[2], rows[2]);
}

TEST(HostileFilesTest, DeepNestingIsAnErrorOfItsRow) {
  const TestFolder folder;
  const auto nested = [](int depth) {
    return "{\"a\":" + std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']') + "}\n";
  };
  folder.Write("a.jsonl", nested(128) + nested(129) + nested(1'000'000));
  const Lines rows = ReadAll(folder.Options({"a.jsonl"}));
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].substr(0, 7), "1 {\"a\":");
  EXPECT_EQ(rows[1].substr(0, 39), "2 too_deep: line 2: the record nests de");
  EXPECT_EQ(rows[2].substr(0, 39), "3 too_deep: line 3: the record nests de");
}

TEST(HostileFilesTest, InvalidUtf8InParquetCostsItsRowAlone) {
  const TestFolder folder;
  // Arrow's builders take any bytes as text.
  arrow::StringBuilder text;
  ASSERT_TRUE(text.AppendValues({"good", "bad \xFF", "fine"}).ok());
  arrow::ListBuilder lists(arrow::default_memory_pool(), std::make_shared<arrow::StringBuilder>());
  auto& items = static_cast<arrow::StringBuilder&>(*lists.value_builder());
  for (const char* item : {"x", "y", "\xC0\xAF"}) {
    ASSERT_TRUE(lists.Append().ok());
    ASSERT_TRUE(items.Append(item).ok());
  }
  const auto table = arrow::Table::Make(
      arrow::schema(
          {arrow::field("t", arrow::utf8()), arrow::field("l", arrow::list(arrow::utf8()))}
      ),
      {text.Finish().ValueOrDie(), lists.Finish().ValueOrDie()}
  );
  {
    auto file = arrow::io::FileOutputStream::Open(folder.Path("a.parquet")).ValueOrDie();
    ASSERT_TRUE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), file, 10).ok());
    auto ipc = arrow::io::FileOutputStream::Open(folder.Path("a.arrow")).ValueOrDie();
    auto writer = arrow::ipc::MakeFileWriter(ipc, table->schema()).ValueOrDie();
    ASSERT_TRUE(writer->WriteTable(*table).ok());
    ASSERT_TRUE(writer->Close().ok());
  }
  const Lines rows{
      R"(1 {"t":"good","l":["x"]})",
      "2 bad_utf8: row 2: column \"t\" is not valid UTF-8",
      "3 bad_utf8: row 3: column \"l\" holds a value that is broken or not valid UTF-8"
  };
  EXPECT_EQ(ReadTwice(folder.Options({"a.parquet"})), rows);
  EXPECT_EQ(ReadTwice(folder.Options({"a.arrow"})), rows);
}

TEST(HostileFilesTest, ADamagedPageCostsTheRestOfItsRowGroupAlone) {
  const TestFolder folder;
  arrow::Int64Builder numbers;
  for (std::int64_t i = 0; i < 300; ++i) ASSERT_TRUE(numbers.Append(i * 7919).ok());
  const auto table = arrow::Table::Make(
      arrow::schema({arrow::field("n", arrow::int64())}), {numbers.Finish().ValueOrDie()}
  );
  {
    auto file = arrow::io::FileOutputStream::Open(folder.Path("a.parquet")).ValueOrDie();
    const auto properties = parquet::WriterProperties::Builder()
                                .disable_dictionary()
                                ->enable_page_checksum()
                                ->data_pagesize(80)
                                ->write_batch_size(10)
                                ->build();
    ASSERT_TRUE(
        parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), file, 100, properties).ok()
    );
  }
  std::string bytes = Bytes(folder.Path("a.parquet"));
  const std::int64_t value = std::int64_t{150} * 7919;
  const std::size_t place =
      bytes.find(std::string(reinterpret_cast<const char*>(&value), sizeof(value)));
  ASSERT_NE(place, bytes.npos);
  bytes[place] ^= 1;
  folder.Write("b.parquet", bytes);
  const Lines rows = ReadTwice(folder.Options({"b.parquet"}));
  ASSERT_EQ(rows.size(), 300u);
  EXPECT_EQ(rows[149], R"(150 {"n":1179931})");
  EXPECT_EQ(rows[150], "151 unreadable: row 151: the data of its row group is damaged");
  EXPECT_EQ(rows[199], "200 unreadable: row 200: the data of its row group is damaged");
  EXPECT_EQ(rows[200], R"(201 {"n":1583800})");
}

}  // namespace
}  // namespace millstream
