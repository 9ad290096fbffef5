// SPDX-License-Identifier: Apache-2.0
// Batch lines: what they hold, and that a row comes back from its line.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "arrow/io/memory.h"
#include "arrow/record_batch.h"
#include "arrow/type.h"
#include "data/input.h"
#include "data/json_value.h"
#include "data/testing.h"
#include "data/writer.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kJob = "0123456789abcdef0123456789abcdef";
const std::vector<std::string> kInputs{"a.jsonl", "b-1.jsonl"};

std::shared_ptr<arrow::Schema> Schema() {
  return arrow::schema(
      {arrow::field("custom_id", arrow::utf8()),
       JsonTextField("response"),
       arrow::field("_status", arrow::utf8()),
       arrow::field(
           "_error",
           arrow::struct_(
               {arrow::field("step", arrow::utf8()),
                arrow::field("code", arrow::utf8()),
                arrow::field("message", arrow::utf8()),
                arrow::field("answer", arrow::utf8())}
           )
       ),
       arrow::field(
           "_source",
           arrow::struct_(
               {arrow::field("file", arrow::utf8()),
                arrow::field("record", arrow::int64()),
                arrow::field("version", arrow::int32())}
           )
       )}
  );
}

struct Row {
  std::string custom_id, response, status, error, source;  // JSON
};

std::shared_ptr<arrow::RecordBatch> BatchOf(const std::vector<Row>& rows) {
  const auto schema = Schema();
  arrow::ArrayVector columns;
  for (int i = 0; i < schema->num_fields(); ++i) {
    auto builder = arrow::MakeBuilder(schema->field(i)->type()).ValueOrDie();
    for (const Row& row : rows) {
      const std::string* const cells[] = {
          &row.custom_id, &row.response, &row.status, &row.error, &row.source
      };
      const std::string cell = i == 1 && *cells[i] != "null" ? Json(*cells[i]).dump() : *cells[i];
      EXPECT_TRUE(AppendJson(cell, *builder).ok()) << cell;
    }
    columns.push_back(builder->Finish().ValueOrDie());
  }
  return arrow::RecordBatch::Make(schema, static_cast<std::int64_t>(rows.size()), columns);
}

std::string Written(const arrow::RecordBatch& batch) {
  const auto sink = arrow::io::BufferOutputStream::Create().ValueOrDie();
  auto writer = MakeTableWriter(
      OutputFormat::kOpenAiBatch, batch.schema(), sink, {{"millstream.job", kJob}}, kInputs
  );
  EXPECT_TRUE(writer.ok()) << writer.status();
  EXPECT_TRUE((*writer)->Write(batch).ok());
  EXPECT_TRUE((*writer)->Close().ok());
  return sink->Finish().ValueOrDie()->ToString();
}

Result<std::shared_ptr<arrow::RecordBatch>> Read(const std::string& text) {
  const auto file = std::make_shared<arrow::io::BufferReader>(arrow::Buffer::FromString(text));
  MS_ASSIGN_OR_RETURN(
      const auto reader, OpenWritten(OutputFormat::kOpenAiBatch, file, "x", Schema(), kInputs, kJob)
  );
  std::shared_ptr<arrow::RecordBatch> batch;
  MS_RETURN_NOT_OK(reader->ReadNext(&batch));
  return batch;
}

Json Line(const Row& row) {
  return Json::parse(Written(*BatchOf({row})));
}

Row Failed(const std::string& code, const std::string& answer = "null") {
  return {
      R"("c\"1")",
      "null",
      R"("error")",
      Json({{"step", "an-swer"},
            {"code", code},
            {"message", "it's wrong"},
            {"answer", answer == "null" ? Json() : Json(answer)}}
      ).dump(),
      R"({"file": "b-1.jsonl", "record": 70, "version": 2})"
  };
}

const Row kOk{
    R"("c1")",
    R"({"id": "x", "n": 12345678901234567890123, "choices": []})",
    R"("ok")",
    "null",
    R"({"file": "a.jsonl", "record": 3, "version": 1})"
};

TEST(OpenAiBatchTest, AnAnswerIsAStatusOf200WithTheWholeObject) {
  EXPECT_EQ(
      Written(*BatchOf({kOk})),
      R"({"id":"batch_req_0123456789ab-0-3-1","custom_id":"c1","response":{"status_code":200,)"
      R"("request_id":"req_0123456789ab-0-3-1","body":{"id":"x","n":12345678901234567890123,)"
      R"("choices":[]}},"error":null})"
      "\n"
  );
}

TEST(OpenAiBatchTest, ARefusalHasItsStatusAndErrorObject) {
  EXPECT_EQ(
      Line(Failed("context_overflow")),
      Json::parse(R"({"id": "batch_req_0123456789ab-1-70-2-context_overflow-an-swer",
        "custom_id": "c\"1", "response": {"status_code": 400,
        "request_id": "req_0123456789ab-1-70-2-context_overflow-an-swer",
        "body": {"error": {"message": "it's wrong", "type": "invalid_request_error", "param": null,
        "code": "context_length_exceeded"}}}, "error": null})")
  );
  EXPECT_EQ(Line(Failed("model_not_found"))["response"]["status_code"], 404);
}

TEST(OpenAiBatchTest, TheAnswerThatAServerGaveIsKept) {
  const Json line = Line(Failed("bad_request", R"(422 {"message":"no","code":7})"));
  EXPECT_EQ(line["response"]["status_code"], 422);
  EXPECT_EQ(line["response"]["body"], Json::parse(R"({"error": {"message": "no", "code": 7}})"));
  EXPECT_TRUE(line["error"].is_null());
}

TEST(OpenAiBatchTest, WhatHasNoHttpAnswerIsAnErrorAlone) {
  const Json line = Line(Failed("timeout"));
  EXPECT_TRUE(line["response"].is_null());
  EXPECT_EQ(line["error"], Json::parse(R"({"code": "timeout", "message": "it's wrong"})"));
}

TEST(OpenAiBatchTest, ALineWithoutAnIdHasANull) {
  Row row = Failed("bad_json");
  row.custom_id = "null";
  EXPECT_TRUE(Line(row)["custom_id"].is_null());
}

TEST(OpenAiBatchTest, LinesReadBackGiveTheSameLinesAgain) {
  const auto rows = BatchOf(
      {kOk,
       Failed("timeout"),
       Failed("context_overflow"),
       Failed("prompt_too_long"),
       Failed("bad_request", R"(413 {"message":"no","type":null,"param":null,"code":"x"})")}
  );
  const std::string text = Written(*rows);
  const auto back = Read(text);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(Written(**back), text);
  // And the rows are those that they were, but that each answer is told now.
  for (const int column : {0, 2, 4})
    EXPECT_TRUE((*back)->column(column)->Equals(*rows->column(column)));
  std::string codes;
  for (std::int64_t row = 0; row < rows->num_rows(); ++row) {
    EXPECT_TRUE(WriteJson(*(*back)->column(3), row, codes).ok());
  }
  for (const char* code : {"timeout", "context_overflow", "prompt_too_long", "bad_request"}) {
    EXPECT_NE(codes.find("\"code\":\"" + std::string(code)), codes.npos) << code;
  }
}

TEST(OpenAiBatchTest, ALineThatTheWriterDoesNotWriteIsNamed) {
  const std::string line = Written(*BatchOf({kOk}));
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = line;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const std::string& text :
       {std::string("[]\n"),
        std::string("{}\n"),
        std::string("\"x\"\n"),
        changed("batch_req_", "other_"),
        changed("0123456789ab-0", "0123456789ac-0"),  // another job's
        changed("0123456789ab-0", "-0"),
        changed("0123456789ab-0", "0123456789abc-0"),
        changed("-0-3-1", "-2-3-1"),  // no such file
        changed("-0-3-1", "-0-x-1"),
        changed("-0-3-1", "-0-3-1-x"),  // a code without a step
        changed("-0-3-1", "-0-99999999999999999999-1"),
        changed("-0-3-1", "-0-3-1-code-step"),
        changed("\"c1\"", "7"),
        changed("\"custom_id\"", "\"other\""),
        changed("\"error\":null", "\"error\":{}"),
        changed("{\"status_code\"", "[]}\n{\"status_code\"")}) {
    const auto back = Read(text);
    ASSERT_FALSE(back.ok()) << text;
    EXPECT_NE(back.status().message().find("x: row 1"), std::string::npos) << back.status();
  }
}

TEST(OpenAiBatchTest, OtherColumnsAreRefusedBeforeTheFirstRow) {
  const auto sink = arrow::io::BufferOutputStream::Create().ValueOrDie();
  EXPECT_TRUE(
      MakeTableWriter(
          OutputFormat::kOpenAiBatch, arrow::schema({arrow::field("x", arrow::int64())}), sink, {}
      )
          .status()
          .IsInvalid()
  );
}

}  // namespace
}  // namespace millstream
