/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_meta.c - the metaschemas: what a schema of each draft looks like, as schemas.
 *
 * Schemas refer to them ("is this value a schema?"), and nothing is fetched, so they are part of the program.
 * Written after the drafts' prose, without their titles and remarks. The compiler does not use them: it
 * checks arguments itself, with better words. */
#include "grammar/gram_schema_int.h"

/* JSON as it stands, quotes and all. */
#define JSON(...) #__VA_ARGS__

#define D20 "https://json-schema.org/draft/2020-12/"
#define D19 "https://json-schema.org/draft/2019-09/"
#define HEAD20(name) "{\"$schema\":\"" D20 "schema\",\"$id\":\"" D20 name "\",\"$dynamicAnchor\":\"meta\","
#define HEAD19(name) "{\"$schema\":\"" D19 "schema\",\"$id\":\"" D19 name "\",\"$recursiveAnchor\":true,"
#define META "\"type\":[\"object\",\"boolean\"],\"properties\":"

/* Shapes that several drafts share; the argument is how a schema of that draft is referred to. */
#define MAP(self) "{\"type\":\"object\",\"additionalProperties\":" self ",\"default\":{}}"
#define LIST(self) "{\"type\":\"array\",\"minItems\":1,\"items\":" self "}"
#define STRINGS "{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"uniqueItems\":true,\"default\":[]}"
#define COUNT "{\"type\":\"integer\",\"minimum\":0}"
#define ANCHOR "{\"type\":\"string\",\"pattern\":\"^[A-Za-z_][-A-Za-z0-9._]*$\"}"
#define URI "{\"type\":\"string\",\"format\":\"uri\"}"
#define REF "{\"type\":\"string\",\"format\":\"uri-reference\"}"
#define STR "{\"type\":\"string\"}"
#define BOOL "{\"type\":\"boolean\"}"
#define NUM "{\"type\":\"number\"}"
#define TYPES "{\"enum\":[\"array\",\"boolean\",\"integer\",\"null\",\"number\",\"object\",\"string\"]}"
#define TYPE                                                                                                 \
    "{\"anyOf\":[" TYPES ",{\"type\":\"array\",\"items\":" TYPES ",\"minItems\":1,\"uniqueItems\":true}]}"
#define NAMES "{\"type\":\"object\",\"additionalProperties\":" STRINGS "}"

#define CORE_COMMON                                                                                          \
    "\"$id\":{\"type\":\"string\",\"format\":\"uri-reference\",\"pattern\":\"^[^#]*#?$\"},\"$schema\":" URI  \
    ",\"$ref\":" REF ",\"$anchor\":" ANCHOR ",\"$comment\":" STR ",\"$vocabulary\":{\"type\":\"object\","    \
    "\"propertyNames\":" URI ",\"additionalProperties\":{\"type\":\"boolean\"}},"
#define IN_PLACE(self)                                                                                       \
    "\"additionalProperties\":" self                                                                         \
    ",\"properties\":" MAP(self) ",\"patternProperties\":" MAP(self) ",\"dependentSchemas\":" MAP(           \
        self) ",\"propertyNames\":" self ",\"if\":" self ",\"then\":" self ",\"else\":" self                 \
              ",\"allOf\":" LIST(self) ",\"anyOf\":" LIST(self) ",\"oneOf\":" LIST(                          \
                  self) ",\"not\":" self ",\"contains\":" self
#define VALIDATION                                                                                           \
    "{\"type\":" TYPE ",\"const\":true,\"enum\":{\"type\":\"array\"},\"multipleOf\":{\"type\":\"number\","   \
    "\"exclusiveMinimum\":0},\"maximum\":" NUM ",\"exclusiveMaximum\":" NUM ",\"minimum\":" NUM              \
    ",\"exclusiveMinimum\":" NUM ",\"maxLength\":" COUNT ",\"minLength\":" COUNT ",\"pattern\":"             \
    "{\"type\":\"string\",\"format\":\"regex\"},\"maxItems\":" COUNT ",\"minItems\":" COUNT                  \
    ",\"uniqueItems\":" BOOL ",\"maxContains\":" COUNT ",\"minContains\":" COUNT ",\"maxProperties\":" COUNT \
    ",\"minProperties\":" COUNT ",\"required\":" STRINGS ",\"dependentRequired\":" NAMES "}}"
#define ANNOTATIONS                                                                                          \
    "{\"title\":" STR ",\"description\":" STR ",\"default\":true,\"deprecated\":" BOOL ",\"readOnly\":" BOOL \
    ",\"writeOnly\":" BOOL ",\"examples\":{\"type\":\"array\",\"items\":true}}}"
#define CONTENT(self) "{\"contentEncoding\":" STR ",\"contentMediaType\":" STR ",\"contentSchema\":" self "}}"

#define DYN "{\"$dynamicRef\":\"#meta\"}"
#define REC "{\"$recursiveRef\":\"#\"}"
#define VOCAB(draft, name) "\"" draft "vocab/" name "\":true,"
#define DEPENDENCIES(self) "{\"type\":\"object\",\"additionalProperties\":{\"anyOf\":[" self "," STRINGS "]}}"

/* Drafts 4 to 7 are one document each. */
#define SELF "{\"$ref\":\"#\"}"
#define OLD_COMMON                                                                                           \
    "\"title\":" STR ",\"description\":" STR ",\"maximum\":" NUM ",\"minimum\":" NUM ",\"maxLength\":" COUNT \
    ",\"minLength\":" COUNT ",\"pattern\":{\"type\":\"string\",\"format\":\"regex\"},\"additionalItems\":"   \
    "{\"anyOf\":[" BOOL "," SELF "]},\"items\":{\"anyOf\":[" SELF "," LIST(                                  \
        SELF) "]},\"maxItems\":" COUNT ",\"minItems\":" COUNT ",\"uniqueItems\":" BOOL                       \
              ",\"maxProperties\":" COUNT ",\"minProperties\":" COUNT                                        \
              ",\"additionalProperties\":{\"anyOf\":[" BOOL "," SELF                                         \
              "]},\"definitions\":" MAP(SELF) ",\"properties\":" MAP(SELF) ",\"patternProperties\":" MAP(    \
                  SELF) ",\"dependencies\":" DEPENDENCIES(SELF) ",\"type\":" TYPE ",\"format\":" STR         \
                                                                ",\"allOf\":" LIST(SELF) ",\"anyOf\":" LIST( \
                                                                    SELF) ",\"oneOf\":" LIST(SELF) ",\"not"  \
                                                                                                   "\""      \
                                                                                                   ":" SELF  \
                                                                                                   ","
#define SIX_COMMON                                                                                           \
    "\"$id\":" REF ",\"$schema\":" URI ",\"$ref\":" REF ",\"multipleOf\":{\"type\":\"number\","              \
    "\"exclusiveMinimum\":0},\"exclusiveMaximum\":" NUM ",\"exclusiveMinimum\":" NUM                         \
    ",\"required\":" STRINGS ",\"contains\":" SELF ",\"propertyNames\":" SELF                                \
    ",\"examples\":{\"type\":\"array\"},\"enum\":"                                                           \
    "{\"type\":\"array\"},"

static const struct {
    const char *uri, *json;
} metaschemas[] = {
    {D20 "schema",
     HEAD20("schema") "\"$vocabulary\":{" VOCAB(D20, "core") VOCAB(D20, "applicator")
         VOCAB(D20, "unevaluated")
         VOCAB(D20, "validation") VOCAB(D20, "meta-data") VOCAB(D20, "format-annotation")
     "\"" D20 "vocab/content\":true},"
     JSON("allOf":[{"$ref":"meta/core"},{"$ref":"meta/applicator"},{"$ref":"meta/unevaluated"},
          {"$ref":"meta/validation"},{"$ref":"meta/meta-data"},{"$ref":"meta/format-annotation"},
          {"$ref":"meta/content"}],)
     META "{\"definitions\":" MAP(DYN) ",\"dependencies\":" DEPENDENCIES(DYN)
     ",\"$recursiveAnchor\":" ANCHOR ",\"$recursiveRef\":" REF "}}"},
    {D20 "meta/core",
     HEAD20("meta/core") META "{" CORE_COMMON "\"$dynamicRef\":" REF ",\"$dynamicAnchor\":" ANCHOR
         ",\"$defs\":" MAP(DYN) "}}"},
    {D20 "meta/applicator", HEAD20("meta/applicator") META "{\"prefixItems\":" LIST(DYN) ",\"items\":" DYN ","
         IN_PLACE(DYN) "}}"},
    {D20 "meta/unevaluated", HEAD20("meta/unevaluated") META "{\"unevaluatedItems\":" DYN
         ",\"unevaluatedProperties\":" DYN "}}"},
    {D20 "meta/validation", HEAD20("meta/validation") META VALIDATION},
    {D20 "meta/meta-data", HEAD20("meta/meta-data") META ANNOTATIONS},
    {D20 "meta/format-annotation", HEAD20("meta/format-annotation") META "{\"format\":" STR "}}"},
    {D20 "meta/format-assertion", HEAD20("meta/format-assertion") META "{\"format\":" STR "}}"},
    {D20 "meta/content", HEAD20("meta/content") META CONTENT(DYN)},
    {D19 "schema",
     HEAD19("schema") "\"$vocabulary\":{" VOCAB(D19, "core") VOCAB(D19, "applicator") VOCAB(D19, "validation")
         VOCAB(D19, "meta-data") "\"" D19 "vocab/format\":false,\"" D19 "vocab/content\":true},"
     JSON("allOf":[{"$ref":"meta/core"},{"$ref":"meta/applicator"},{"$ref":"meta/validation"},
          {"$ref":"meta/meta-data"},{"$ref":"meta/format"},{"$ref":"meta/content"}],)
     META "{\"definitions\":" MAP(REC) ",\"dependencies\":" DEPENDENCIES(REC) "}}"},
    {D19 "meta/core",
     HEAD19("meta/core") META "{" CORE_COMMON "\"$recursiveRef\":" REF ",\"$recursiveAnchor\":" BOOL
         ",\"$defs\":" MAP(REC) "}}"},
    {D19 "meta/applicator",
     HEAD19("meta/applicator") META "{\"additionalItems\":" REC ",\"unevaluatedItems\":" REC
         ",\"items\":{\"anyOf\":[" REC "," LIST(REC)
         "]},\"unevaluatedProperties\":" REC "," IN_PLACE(REC) "}}"},
    {D19 "meta/validation", HEAD19("meta/validation") META VALIDATION},
    {D19 "meta/meta-data", HEAD19("meta/meta-data") META ANNOTATIONS},
    {D19 "meta/format", HEAD19("meta/format") META "{\"format\":" STR "}}"},
    {D19 "meta/content", HEAD19("meta/content") META CONTENT(REC)},
    {"http://json-schema.org/draft-07/schema",
     JSON({"$schema":"http://json-schema.org/draft-07/schema#",
          "$id":"http://json-schema.org/draft-07/schema#",)
     META "{" OLD_COMMON SIX_COMMON
     JSON("$comment":{"type":"string"},"default":true,"readOnly":{"type":"boolean"},"const":true,
          "writeOnly":{"type":"boolean"},"if":{"$ref":"#"},"then":{"$ref":"#"},"else":{"$ref":"#"},
          "contentMediaType":{"type":"string"},"contentEncoding":{
        "type" : "string"}}})},
    {"http://json-schema.org/draft-06/schema",
     JSON({"$schema":"http://json-schema.org/draft-06/schema#",
          "$id":"http://json-schema.org/draft-06/schema#",)
     META "{" OLD_COMMON SIX_COMMON JSON("default":{},"const":{}}})
},
    {"http://json-schema.org/draft-04/schema",
     JSON({"$schema":"http://json-schema.org/draft-04/schema#","id":"http://json-schema.org/draft-04/schema#",
           "type":"object","dependencies":{"exclusiveMaximum":["maximum"],"exclusiveMinimum":["minimum"]},
           "properties":{) OLD_COMMON
     JSON("id":{"type":"string"},"$schema":{"type":"string"},"default":{},
          "multipleOf":{"type":"number","minimum":0,"exclusiveMinimum":true},
          "exclusiveMaximum":{"type":"boolean"},"exclusiveMinimum":{"type":"boolean"},
          "required":{"type":"array","minItems":1,"items":{"type":"string"},"uniqueItems":true},
          "enum":{
    "type" : "array", "minItems" : 1, "uniqueItems" : true}}})},
}
;

const char *gs_metaschema(const char *uri) {
    for (size_t i = 0; i < SQ_COUNT(metaschemas); i++)
        if (strcmp(metaschemas[i].uri, uri) == 0) return metaschemas[i].json;
    return NULL;
}
