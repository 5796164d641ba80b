/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include <libxml/HTMLparser.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>

#include "agent/base/str.h"
#include "crawler/extract/document.h"

/* libxml2 is used here and nowhere else: no network, no entities, no document types, none of its
 * huge limits. Charsets are decoded by ourselves, since the sites declare one and send another. */

#define XPATH_STEPS_MAX 50000000UL
#define CONTENT_MAX     (1024 * 1024)
#define PARTS_MAX       32

DEFINE_AUTO(xmlDoc, xmlFreeDoc)
DEFINE_AUTO(xmlXPathContext, xmlXPathFreeContext)
DEFINE_AUTO(xmlXPathObject, xmlXPathFreeObject)
DEFINE_AUTO(xmlXPathCompExpr, xmlXPathFreeCompExpr)

static void be_silent(void *data, xmlErrorPtr error)
{
}

/* Decoders complain to stderr whatever the parser's options say. */
static void begin_silence(void)
{
    xmlSetStructuredErrorFunc(NULL, be_silent);
    xmlResetLastError();
}

static xmlXPathCompExprPtr xpath_compile(xmlXPathContextPtr context, const char *text)
{
    context->error = be_silent;
    return xmlXPathCtxtCompile(context, (const xmlChar *)text);
}

/* --- Cells out of XPath results -----------------------------------------------------------------
 */

/* White space at the ends cut and inside made one blank: markup is broken anywhere. */
static int add_cell_text(Document *doc, const char *s, Cell *ret)
{
    size_t size = strlen(s), n = 0;
    auto_free char *text = NULL;

    if (size > CONTENT_MAX)
        return document_refuse(doc, "a text of more than %d bytes", CONTENT_MAX);
    text = malloc(size + 1);
    if (!text)
        return -ENOMEM;
    for (const char *p = s; *p; p++) {
        /* U+00A0 is what pages put for "nothing here". */
        bool nbsp = (unsigned char)p[0] == 0xc2 && (unsigned char)p[1] == 0xa0;

        if (nbsp || strchr(" \t\r\n", *p)) {
            if (n > 0 && text[n - 1] != ' ')
                text[n++] = ' ';
            p += nbsp;
        } else
            text[n++] = *p;
    }
    while (n > 0 && text[n - 1] == ' ')
        n--;
    *ret = (Cell){.text = document_text(doc, text, n), .size = (uint32_t)n, .kind = CELL_TEXT};
    return ret->text ? 1 : -ENOMEM;
}

static int cell_from_node(Document *doc, xmlNodePtr node, Cell *ret)
{
    xmlChar *content = xmlNodeGetContent(node);
    int r;

    if (!content)
        return 1; /* absent */
    r = add_cell_text(doc, (const char *)content, ret);
    xmlFree(content);
    return r;
}

static int cell_from_result(Document *doc, xmlXPathObjectPtr result, Cell *ret)
{
    xmlChar *text;
    int r;

    switch (result->type) {
    case XPATH_NODESET:
        if (xmlXPathNodeSetIsEmpty(result->nodesetval))
            return 1;
        return cell_from_node(doc, result->nodesetval->nodeTab[0], ret);
    case XPATH_BOOLEAN:
        if (result->boolval)
            *ret = (Cell){.kind = CELL_TRUE};
        return 1;
    default:
        text = xmlXPathCastToString(result);
        if (!text)
            return -ENOMEM;
        r = *text ? add_cell_text(doc, (const char *)text, ret) : 1;
        xmlFree(text);
        return r;
    }
}

static int eval_cell(Document *doc, xmlXPathContextPtr context, xmlXPathCompExprPtr compiled,
                     Cell *ret)
{
    auto_(xmlXPathFreeObjectp) xmlXPathObject *result = xmlXPathCompiledEval(compiled, context);

    if (!result)
        return document_refuse(doc, "an XPath of the recipe cannot be answered");
    return cell_from_result(doc, result, ret);
}

static int eval_text(Document *doc, xmlXPathContextPtr context, const char *xpath, Cell *ret)
{
    auto_(xmlXPathFreeCompExprp) xmlXPathCompExpr *compiled = NULL;

    if (!xpath)
        return 1;
    compiled = xpath_compile(context, xpath);
    if (!compiled)
        return document_refuse(doc, "\"%s\" of the recipe is no XPath", xpath);
    return eval_cell(doc, context, compiled, ret);
}

/* --- Values of the document ---------------------------------------------------------------------
 */

static int read_rules(Document *doc, xmlXPathContextPtr context, const FieldArray *rules,
                      RuleCells *cells)
{
    int r = 1;

    FOREACH_ITEM (RecipeRule, rule, *rules) {
        if (r > 0)
            r = eval_text(doc, context, rule->path, &cells->path);
        if (r > 0)
            r = eval_text(doc, context, rule->message, &cells->message);
        for (size_t i = 0; rule->absent && rule->absent[i] && r > 0; i++)
            r = eval_text(doc, context, rule->absent[i], &cells->absent[i]);
        cells++;
    }
    return r;
}

static int read_values(Document *doc, xmlXPathContextPtr context)
{
    const Recipe *recipe = doc->recipe;
    size_t i = 0;
    int r;

    r = read_rules(doc, context, &recipe->errors, doc->errors);
    if (r > 0)
        r = read_rules(doc, context, &recipe->empty, doc->empties);
    FOREACH_ITEM (RecipeValue, value, recipe->values)
        if (r > 0)
            r = eval_text(doc, context, value->path, &doc->values[i++]);
    if (r > 0)
        r = eval_text(doc, context, recipe->paging.more, &doc->more);
    for (i = 0; i < recipe->tables.n; i++)
        FOREACH_ITEM (RecipeColumn, column, document_table(doc, i)->columns)
            if (r > 0)
                r = eval_text(doc, context, column->header, &doc->header[i][column->field]);
    return r;
}

/* --- Rows ---------------------------------------------------------------------------------------
 */

typedef struct RowReader {
    Document *doc;
    size_t table;
    const RecipeTable *recipe;
    xmlXPathContextPtr context;
    xmlXPathCompExprPtr columns[ROW_FIELD_MAX];
    xmlXPathCompExprPtr attribute;
} RowReader;

static void row_reader_done(RowReader *reader)
{
    for (size_t f = 0; f < ROW_FIELD_MAX; f++)
        if (reader->columns[f])
            xmlXPathFreeCompExpr(reader->columns[f]);
    if (reader->attribute)
        xmlXPathFreeCompExpr(reader->attribute);
}

static size_t count_cells(xmlNodePtr row)
{
    size_t n = 0;

    for (xmlNodePtr node = row->children; node; node = node->next)
        n += node->type == XML_ELEMENT_NODE &&
             (xmlStrcasecmp(node->name, (const xmlChar *)"td") == 0);
    return n;
}

/* "20260814|275000|…" into its parts, each a column by its index. */
static int split_row(RowReader *reader, const Cell *whole)
{
    Cell parts[PARTS_MAX];
    size_t n = 0;
    const char *p = whole->text, *end = p + whole->size;

    while (n < PARTS_MAX) {
        const char *stop = memchr(p, reader->recipe->split[0], (size_t)(end - p));

        if (!stop)
            stop = end;
        parts[n++] = (Cell){.text = p, .size = (uint32_t)(stop - p), .kind = CELL_TEXT};
        if (stop == end)
            break;
        p = stop + 1;
    }
    FOREACH_ITEM (RecipeColumn, column, reader->recipe->columns) {
        uint32_t index;

        if (!column->path)
            continue;
        index = column->path_compiled->steps[0].index;
        if (index < n)
            *document_cell(reader->doc, reader->table, column->field) = parts[index];
    }
    return 1;
}

static int read_row(RowReader *reader, xmlNodePtr row)
{
    Cell whole = {0};
    int r;

    r = document_add_row(reader->doc, reader->table);
    if (r < 0)
        return r == -EOVERFLOW ? document_refuse(reader->doc, "more than %d rows", TABLE_ROWS_MAX)
                               : r;
    reader->context->node = row;
    if (reader->attribute) {
        r = eval_cell(reader->doc, reader->context, reader->attribute, &whole);
        return r <= 0 ? r : cell_is_there(&whole) ? split_row(reader, &whole) : 1;
    }
    for (size_t f = 0; f < ROW_FIELD_MAX; f++) {
        if (!reader->columns[f])
            continue;
        r = eval_cell(reader->doc, reader->context, reader->columns[f],
                      document_cell(reader->doc, reader->table, (RowField)f));
        if (r <= 0)
            return r;
    }
    return 1;
}

static int compile_row(RowReader *reader)
{
    if (reader->recipe->split) {
        reader->attribute = xpath_compile(reader->context, reader->recipe->attribute);
        return reader->attribute
                   ? 1
                   : document_refuse(reader->doc, "attribute of the recipe is no XPath");
    }
    FOREACH_ITEM (RecipeColumn, column, reader->recipe->columns) {
        if (!column->path)
            continue;
        reader->columns[column->field] = xpath_compile(reader->context, column->path);
        if (!reader->columns[column->field])
            return document_refuse(reader->doc, "\"%s\" of the recipe is no XPath", column->path);
    }
    return 1;
}

static int read_table(Document *doc, xmlXPathContextPtr context, size_t table)
{
    auto_(row_reader_done) RowReader reader = {
        .doc = doc, .table = table, .recipe = document_table(doc, table), .context = context};
    auto_(xmlXPathFreeCompExprp) xmlXPathCompExpr *compiled = NULL;
    auto_(xmlXPathFreeObjectp) xmlXPathObject *rows = NULL;
    xmlNodePtr root = context->node;
    int r;

    compiled = xpath_compile(context, reader.recipe->rows);
    rows = compiled ? xmlXPathCompiledEval(compiled, context) : NULL;
    if (!rows || rows->type != XPATH_NODESET)
        return document_refuse(doc, "\"%s\" of the recipe gives no nodes", reader.recipe->rows);
    doc->tables[table].seen = true; /* the root was right */
    r = compile_row(&reader);
    for (int i = 0; r > 0 && rows->nodesetval && i < rows->nodesetval->nodeNr; i++) {
        xmlNodePtr row = rows->nodesetval->nodeTab[i];

        if (row->type != XML_ELEMENT_NODE ||
            (reader.recipe->min_cells > 0 && count_cells(row) < reader.recipe->min_cells))
            continue;
        r = read_row(&reader, row);
    }
    context->node = root;
    return r;
}

static int read_tree(Document *doc, xmlDocPtr tree)
{
    auto_(xmlXPathFreeContextp) xmlXPathContext *context = xmlXPathNewContext(tree);
    int r;

    if (!context)
        return -ENOMEM;
    context->error = be_silent;
    context->opLimit = XPATH_STEPS_MAX;
    context->node = xmlDocGetRootElement(tree);
    if (doc->recipe->format == RECIPE_HTML) {
        Cell there = {0};

        r = eval_text(doc, context, doc->recipe->root, &there);
        if (r <= 0)
            return r;
        if (!cell_is_there(&there))
            return document_refuse(doc, "the page has no %s", doc->recipe->root);
    }
    r = read_values(doc, context);
    for (size_t i = 0; i < doc->recipe->tables.n && r > 0; i++)
        r = read_table(doc, context, i);
    return r;
}

/* --- Documents ----------------------------------------------------------------------------------
 */

/* Blank lines may stand before an XML declaration, which XML forbids. */
static void skip_blanks(const char **body, size_t *size)
{
    if (*size >= 3 && memcmp(*body, "\xef\xbb\xbf", 3) == 0) {
        *body += 3;
        *size -= 3;
    }
    while (*size > 0 && strchr(" \t\r\n", **body) && **body) {
        (*body)++;
        (*size)--;
    }
}

/* Decodes by the recipe's charset, else leaves it to libxml2. */
static int decode(Document *doc, const char **body, size_t *size, Buf *buf,
                  const char **ret_encoding)
{
    int r;

    *ret_encoding = NULL;
    if (!doc->recipe->charset)
        return 1;
    r = charset_decode(doc->recipe->charset, *body, *size, buf);
    if (r < 0)
        return r == -EINVAL ? document_refuse(doc, "unknown charset %s", doc->recipe->charset) : r;
    *body = buf_str(buf);
    *size = buf->size;
    *ret_encoding = "UTF-8";
    return 1;
}

static int refuse_syntax(Document *doc, const char *what)
{
    xmlErrorPtr error = xmlGetLastError();
    const char *text = "unreadable";
    auto_free char *message = NULL;
    int r;

    if (error && error->message)
        text = str_strip(error->message);
    message = str_escape(text, strlen(text), 200);
    if (!message)
        return -ENOMEM;
    r = document_refuse(doc, "not %s: line %d: %s", what, error ? error->line : 0, message);
    xmlResetLastError();
    return r;
}

int document_read_xml(Document *doc, const char *body, size_t size)
{
    auto_buf Buf buf = BUF_INIT(size * 4 + 64);
    auto_(xmlFreeDocp) xmlDoc *tree = NULL;
    const char *encoding;
    xmlNodePtr root;
    int r;

    skip_blanks(&body, &size);
    r = decode(doc, &body, &size, &buf, &encoding);
    if (r <= 0)
        return r;
    /* Entities, bombs of them and external ones need a document type; market data never has one. */
    if (memmem(body, size, "<!DOCTYPE", 9))
        return document_refuse(doc, "the document has a document type, which data has no need of");
    begin_silence();
    tree = xmlReadMemory(body, (int)MIN_OF(size, (size_t)INT32_MAX), NULL, encoding,
                         XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                             XML_PARSE_NOCDATA | (encoding ? XML_PARSE_IGNORE_ENC : 0));
    if (!tree)
        return refuse_syntax(doc, "XML");
    if (xmlGetIntSubset(tree))
        return document_refuse(doc, "the document has a document type, which data has no need of");
    root = xmlDocGetRootElement(tree);
    if (doc->recipe->root && (!root || !streq((const char *)root->name, doc->recipe->root)))
        return document_refuse(doc, "the root element is <%.40s>, not <%s>",
                               root ? (const char *)root->name : "", doc->recipe->root);
    return read_tree(doc, tree);
}

int document_read_html(Document *doc, const char *body, size_t size)
{
    auto_buf Buf buf = BUF_INIT(size * 4 + 64);
    auto_(xmlFreeDocp) xmlDoc *tree = NULL;
    const char *encoding;
    int r;

    skip_blanks(&body, &size);
    r = decode(doc, &body, &size, &buf, &encoding);
    if (r <= 0)
        return r;
    if (size == 0)
        return document_refuse(doc, "the page is empty");
    begin_silence();
    tree = htmlReadMemory(body, (int)MIN_OF(size, (size_t)INT32_MAX), NULL,
                          encoding ? encoding : "UTF-8",
                          HTML_PARSE_NONET | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                              HTML_PARSE_RECOVER | (encoding ? HTML_PARSE_IGNORE_ENC : 0));
    if (!tree || !xmlDocGetRootElement(tree))
        return refuse_syntax(doc, "HTML");
    return read_tree(doc, tree);
}

const char *document_check_xpath(const char *xpath)
{
    auto_(xmlXPathFreeContextp) xmlXPathContext *context = xmlXPathNewContext(NULL);
    auto_(xmlXPathFreeCompExprp) xmlXPathCompExpr *compiled = NULL;

    if (!context)
        return "memory is out";
    compiled = xpath_compile(context, xpath);
    return compiled ? NULL : "libxml2 cannot read it";
}
