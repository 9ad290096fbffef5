// SPDX-License-Identifier: Apache-2.0
#include "data/json_value.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "arrow/array.h"
#include "arrow/type.h"
#include "data/input.h"
#include "data/testing.h"

namespace millstream {
namespace {

std::string WrittenAgain(const std::string& type_name, const std::string& json) {
  const auto type = ParseType(type_name).ValueOrDie();
  const auto builder = arrow::MakeBuilderExactIndex(type).ValueOrDie();
  const Status status = AppendJson(json, *builder);
  if (!status.ok()) {
    EXPECT_EQ(builder->length(), 0) << type_name << " " << json;
    return "! " + status.message();
  }
  const auto array = builder->Finish().ValueOrDie();
  EXPECT_EQ(array->length(), 1);
  EXPECT_TRUE(array->ValidateFull().ok()) << array->ValidateFull();
  std::string out;
  EXPECT_TRUE(WriteJson(*array, 0, out).ok());
  return out;
}

struct Case {
  const char* type;
  const char* json;
  const char* written;  // "! message" for a misfit
};

class JsonValueCaseTest : public testing::TestWithParam<Case> {};

TEST_P(JsonValueCaseTest, IsWrittenAsExpected) {
  const Case& c = GetParam();
  EXPECT_EQ(WrittenAgain(c.type, c.json), c.written) << c.type << " " << c.json;
}

INSTANTIATE_TEST_SUITE_P(
    Numbers,
    JsonValueCaseTest,
    testing::Values(
        Case{"int64", "9223372036854775807", "9223372036854775807"},
        Case{"int64", "9223372036854775808", "! is 9223372036854775808, out of range for int64"},
        Case{"uint64", "18446744073709551615", "18446744073709551615"},
        Case{"uint8", "-1", "! is -1, out of range for uint8"},
        Case{"uint8", "-0", "0"},
        Case{"int8", "-128", "-128"},
        Case{"int64", "1.0", "1"},
        Case{"int64", "1.20e1", "12"},
        Case{"int64", "1200e-2", "12"},
        Case{"int64", "1.5", "! is 1.5, expected int64"},
        Case{"int64", "0e20", "0"},
        Case{
            "int64",
            "1e999999999999999999999",
            "! is not valid JSON: Number too big to be stored in double (byte 1)"
        },
        Case{"int64", "1e30", "! is 1e30, out of range for int64"},
        Case{"int64", "\"1\"", "! is a string, expected int64"},
        Case{"int64", "true", "! is true, expected int64"},
        Case{"int64", "null", "null"},
        Case{"double", "1", "1.0"},
        Case{"double", "0.1", "0.1"},
        Case{
            "double", "1e400", "! is not valid JSON: Number too big to be stored in double (byte 1)"
        },
        Case{"double", "1e-400", "0.0"},
        Case{"double", "-0", "-0.0"},
        Case{"double", "9007199254740992", "9007199254740992.0"},
        Case{"double", "9007199254740993", "! is 9007199254740993, has more digits than double"},
        Case{"double", "123456789012345680000", "123456789012345683968.0"},
        Case{"double", "\"NaN\"", "\"NaN\""},
        Case{"double", "\"-Infinity\"", "\"-Infinity\""},
        Case{"double", "\"nan\"", "! is a string, expected double"},
        Case{"float", "0.1", "0.1"},
        Case{"float", "1e39", "! is 1e39, out of range for float"},
        Case{"float16", "0.5", "0.5"},
        Case{"float16", "70000", "! is 70000, out of range for float16"},
        Case{"decimal(10, 2)", "12345678.90", "12345678.90"},
        Case{"decimal(10, 2)", "\"-0.05\"", "-0.05"},
        Case{"decimal(10, 2)", "1e3", "1000.00"},
        Case{"decimal(10, 2)", "0.005", "! is 0.005, does not fit decimal(10, 2)"},
        Case{"decimal(4, 2)", "123", "! is 123, does not fit decimal(4, 2)"},
        Case{"decimal(10, 2)", "\"abc\"", "! is \"abc\", does not fit decimal(10, 2)"},
        Case{
            "decimal(38, 0)",
            "99999999999999999999999999999999999999",
            "99999999999999999999999999999999999999"
        },
        Case{
            "decimal256(76, 3)",
            "-123456789012345678901234567890123456789012345.125",
            "-123456789012345678901234567890123456789012345.125"
        },
        Case{"duration[ms]", "-5", "-5"}
    )
);

INSTANTIATE_TEST_SUITE_P(
    TextAndTime,
    JsonValueCaseTest,
    testing::Values(
        Case{"string", "\"a\\u0000\\n\\\"\\u00e9\\ud83d\\ude00\\/\"", "\"a\\u0000\\n\\\"é😀/\""},
        Case{"string", "1", "! is 1, expected string"},
        Case{
            "string",
            "\"\\ud800\"",
            "! is not valid JSON: The surrogate pair in string is invalid (byte 2)"
        },
        Case{"string", "\"\\udc00\"", "! has half of a surrogate pair"},
        Case{"string", "\"\xff\"", "! is not valid UTF-8"},
        Case{
            "string",
            "\"a",
            "! is not valid JSON: Missing a closing quotation mark in string (byte 3)"
        },
        Case{"binary", "\"aGk=\"", "\"aGk=\""},
        Case{"binary", "\"a*\"", "! is \"a*\", not base64, expected binary"},
        Case{"fixed_size_binary[2]", "\"aGk=\"", "\"aGk=\""},
        Case{
            "fixed_size_binary[3]", "\"aGk=\"", "! is \"aGk=\", not as long as fixed_size_binary[3]"
        },
        Case{"date32", "\"2024-02-29\"", "\"2024-02-29\""},
        Case{"date32", "\"2023-02-29\"", "! is \"2023-02-29\", expected date32"},
        Case{"date32", "\"0000-01-01\"", "\"0000-01-01\""},
        Case{"date32", "\"+010000-01-01\"", "\"+010000-01-01\""},
        Case{"date64", "\"1969-12-31\"", "\"1969-12-31\""},
        Case{"time32[ms]", "\"23:59:59.5\"", "\"23:59:59.500\""},
        Case{"time32[s]", "\"24:00:00\"", "! is \"24:00:00\", expected time32[s]"},
        Case{"time64[ns]", "\"00:00\"", "\"00:00:00.000000000\""},
        Case{"timestamp[us]", "\"2024-01-02 03:04:05\"", "\"2024-01-02T03:04:05.000000\""},
        Case{"timestamp[s]", "\"2024-01-02\"", "\"2024-01-02T00:00:00\""},
        Case{
            "timestamp[ms]",
            "\"2024-01-02T03:04:05.1234\"",
            "! is \"2024-01-02T03:04:05.1234\", expected timestamp[ms]"
        },
        Case{"timestamp[ms]", "\"1969-12-31T23:59:59.999000\"", "\"1969-12-31T23:59:59.999\""},
        Case{
            "timestamp[ms]",
            "\"2024-01-02T03:04:05Z\"",
            "! is \"2024-01-02T03:04:05Z\", expected timestamp[ms]"
        },
        Case{"timestamp[ms, UTC]", "\"2024-01-02T03:04:05+02:00\"", "\"2024-01-02T01:04:05.000Z\""},
        Case{
            "timestamp[s, Europe/Berlin]",
            "\"2024-01-02T03:04:05-0130\"",
            "\"2024-01-02T04:34:05Z\""
        },
        Case{
            "timestamp[ms, UTC]",
            "\"2024-01-02T03:04:05\"",
            "! is \"2024-01-02T03:04:05\", expected timestamp[ms, UTC]"
        },
        Case{
            "timestamp[ns]",
            "\"2262-04-11T23:47:16.854775807\"",
            "\"2262-04-11T23:47:16.854775807\""
        },
        Case{
            "timestamp[ns]",
            "\"2262-04-11T23:47:16.854775808\"",
            "! is \"2262-04-11T23:47:16.854775808\", expected timestamp[ns]"
        },
        Case{
            "timestamp[ns]",
            "\"1677-09-21T00:12:43.145224192\"",
            "\"1677-09-21T00:12:43.145224192\""
        },
        Case{"bool", "false", "false"},
        Case{"bool", "0", "! is 0, expected bool"},
        Case{"null", "null", "null"},
        Case{"null", "1", "! is 1, expected null"}
    )
);

INSTANTIATE_TEST_SUITE_P(
    Nested,
    JsonValueCaseTest,
    testing::Values(
        Case{"list<int64>", " [ 1 , null,3 ] ", "[1,null,3]"},
        Case{"list<int64>", "[1,\"x\"]", "! at [1] is a string, expected int64"},
        Case{"list<int64>", "{}", "! is an object, expected list<int64>"},
        Case{"list<int64 not null>", "[null]", "! at [0] is null, expected int64"},
        Case{"large_list<list<string>>", "[[],[\"\"],null]", "[[],[\"\"],null]"},
        Case{"list_view<int8>", "[1,2]", "[1,2]"},
        Case{"fixed_size_list<bool, 2>", "[true,false]", "[true,false]"},
        Case{
            "fixed_size_list<bool, 2>",
            "[true]",
            "! is an array of 1, expected fixed_size_list<bool, 2>"
        },
        Case{"struct<a: int64, b: list<string>>", R"({"b":["x"],"a":1})", R"({"a":1,"b":["x"]})"},
        Case{"struct<a: int64, b: string>", R"({"b":"x"})", R"({"a":null,"b":"x"})"},
        Case{"struct<a: int64, b: string>", R"({"a":1,"c":2})", "! has an unknown member c"},
        Case{"struct<a: int64>", R"({"a":1,"a":2})", R"({"a":2})"},
        Case{"struct<a: int64 not null>", "{}", "! has no member a"},
        Case{
            "struct<a: struct<b: list<uint8>>>",
            R"({"a":{"b":[1,2,300]}})",
            "! at a.b[2] is 300, out of range for uint8"
        },
        Case{"struct<>", "{}", "{}"},
        Case{"map<string, int64>", R"({"x":1,"":null,"x":3})", R"({"x":1,"":null,"x":3})"},
        Case{"map<string, int64>", R"([["x",1]])", R"({"x":1})"},
        Case{"map<int64, string>", R"([[1,"a"],[2,null]])", R"([[1,"a"],[2,null]])"},
        Case{
            "map<int64, string>", R"([[1]])", "! at [0] is an array, expected a [key, value] pair"
        },
        Case{"map<int64, string>", R"([[null,"a"]])", "! at [0] is null, expected int64"},
        Case{"map<int64, string>", "{}", "! is an object, expected map<int64, string>"},
        Case{"dictionary<string, int32>", "\"x\"", "\"x\""},
        Case{"list<dictionary<string, int8>>", R"(["x","y","x",null])", R"(["x","y","x",null])"},
        Case{
            "list<int64>",
            "[1]]",
            "! is not valid JSON: The document root must not be followed by other values (byte 4)"
        },
        Case{"int64", "", "! is not valid JSON: The document is empty (byte 1)"}
    )
);

TEST(JsonValueTest, EveryValueOfEveryTypeSurvivesTheRoundTrip) {
  TestRandom random(7);
  for (int round = 0; round < 200; ++round) {
    const auto type = RandomType(random, 3);
    const auto array = RandomArray(type, 20, random);
    ASSERT_TRUE(array->ValidateFull().ok()) << array->ValidateFull() << TypeName(*type);
    const auto builder = arrow::MakeBuilderExactIndex(type).ValueOrDie();
    for (std::int64_t row = 0; row < array->length(); ++row) {
      std::string json;
      ASSERT_TRUE(WriteJson(*array, row, json).ok());
      const Status status = AppendJson(json, *builder);
      ASSERT_TRUE(status.ok()) << TypeName(*type) << " " << json << " " << status;
    }
    const auto back = builder->Finish().ValueOrDie();
    // Text has no dictionaries' indices, so they may differ; their values may not.
    const auto equal = arrow::EqualOptions::Defaults().nans_equal(true).signed_zeros_equal(false);
    if (TypeName(*type).find("dictionary") == std::string::npos) {
      EXPECT_TRUE(array->Equals(back, equal))
          << TypeName(*type) << array->type()->ToString(true) << back->type()->ToString(true)
          << array->Slice(0, 3)->ToString() << back->Slice(0, 3)->ToString();
    }
    for (std::int64_t row = 0; row < array->length(); ++row) {
      std::string before;
      std::string after;
      ASSERT_TRUE(WriteJson(*array, row, before).ok());
      ASSERT_TRUE(WriteJson(*back, row, after).ok());
      ASSERT_EQ(before, after);
    }
  }
}

TEST(JsonValueTest, NestingBeyondTheLimitIsRefused) {
  JsonDocument document;
  const std::string deep = std::string(kJsonDepthMax, '[') + std::string(kJsonDepthMax, ']');
  EXPECT_TRUE(document.Parse(deep).ok());
  EXPECT_EQ(document.Parse("[" + deep + "]").message(), "nests deeper than 128");
  EXPECT_FALSE(document.Parse(std::string(1'000'000, '[')).ok());
}

TEST(JsonValueTest, NulByteDoesNotEndTheText) {
  JsonDocument document;
  EXPECT_FALSE(document.Parse(std::string_view("1\0 2", 4)).ok());
  EXPECT_FALSE(document.Parse(std::string_view("\"a\0b\"", 5)).ok());
}

TEST(JsonValueTest, CanonicalJsonDropsWhiteSpaceAndKeepsDigits) {
  std::string out;
  WriteCanonicalJson(" { \"a\" : [ 1.00 , 1e5,\n\"x y\" ], \"a\":null } ", out);
  EXPECT_EQ(out, R"({"a":[1.00,1e5,"x y"],"a":null})");
  out.clear();
  WriteCanonicalJson("not json", out);
  EXPECT_EQ(out, "\"not json\"");
}

TEST(JsonValueTest, MarkedFieldHoldsAnyJson) {
  const auto type = arrow::struct_({JsonTextField("any")});
  const auto builder = arrow::MakeBuilder(type).ValueOrDie();
  ASSERT_TRUE(AppendJson(R"({"any": {"x": [1, "2"]}})", *builder).ok());
  const auto array = builder->Finish().ValueOrDie();
  EXPECT_EQ(
      static_cast<const arrow::StringArray&>(*static_cast<const arrow::StructArray&>(*array).field(0
                                             ))
          .GetView(0),
      R"({"x":[1,"2"]})"
  );
  std::string out;
  ASSERT_TRUE(WriteJson(*array, 0, out).ok());
  EXPECT_EQ(out, R"({"any":{"x":[1,"2"]}})");
}

TEST(TypeNameTest, EveryTypeIsParsedBackFromItsName) {
  TestRandom random(11);
  for (int round = 0; round < 300; ++round) {
    const auto type = RandomType(random, 4);
    const auto back = ParseType(TypeName(*type));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE((*back)->Equals(*type)) << TypeName(*type);
  }
}

TEST(TypeNameTest, OtherSpellingsAreKnown) {
  const auto same = [](const char* name, const char* canonical) {
    EXPECT_EQ(TypeName(*ParseType(name).ValueOrDie()), canonical);
  };
  same("decimal128(10,2)", "decimal(10, 2)");
  same(" list< utf8 >", "list<string>");
  same("timestamp[ms, tz=UTC]", "timestamp[ms, UTC]");
  same("timestamp", "timestamp[us]");
  same(
      "struct<\"a b\": int32 not null, c.d: float64>",
      "struct<\"a b\": int32 not null, c.d: double>"
  );
}

TEST(TypeNameTest, MistakesNameTheirPlace) {
  for (const char* name :
       {"",
        "int65",
        "list<",
        "list<int64",
        "list<int64>>",
        "decimal(99, 2)",
        "decimal",
        "timestamp[min]",
        "time32[ns]",
        "struct<a int64>",
        "map<string>",
        "fixed_size_list<int8, -1>",
        "json"}) {
    EXPECT_FALSE(ParseType(name).ok()) << name;
  }
  EXPECT_NE(ParseType("list<strng>").status().message().find("at character 6"), std::string::npos);
  EXPECT_FALSE(ParseType([] {
                 std::string deep;
                 for (int i = 0; i < 10'000; ++i) deep += "list<";
                 return deep;
               }())
                   .ok());
}

}  // namespace
}  // namespace millstream
