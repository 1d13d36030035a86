/* A file made by version 1 of the inbox is brought up to date with all that it holds. */
#include "inbox_fixture.h"

/* As version 1 made them. */
static const char version_1[] =
    "CREATE TABLE waybill_schema(component TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL)"
    " WITHOUT ROWID;"
    "INSERT INTO waybill_schema VALUES('inbox', 1);"
    "CREATE TABLE inbox_position(consumer TEXT NOT NULL, stream TEXT NOT NULL,"
    " created INTEGER NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY(consumer, stream))"
    " WITHOUT ROWID;"
    "CREATE TABLE inbox_page(consumer TEXT NOT NULL, source BLOB NOT NULL, page INTEGER NOT NULL,"
    " full INTEGER NOT NULL, bits BLOB NOT NULL, PRIMARY KEY(consumer, source, page))"
    " WITHOUT ROWID;"
    "CREATE TABLE inbox_foreign(consumer TEXT NOT NULL, event TEXT NOT NULL,"
    " number INTEGER NOT NULL, stored_at INTEGER NOT NULL, PRIMARY KEY(consumer, event))"
    " WITHOUT ROWID;"
    "CREATE INDEX inbox_foreign_number ON inbox_foreign(consumer, number);"
    "CREATE TABLE inbox_failure(consumer TEXT NOT NULL, event TEXT NOT NULL,"
    " failures INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY(consumer, event))"
    " WITHOUT ROWID;"
    "CREATE TABLE dead_letter(id INTEGER PRIMARY KEY AUTOINCREMENT, consumer TEXT NOT NULL,"
    " subject TEXT NOT NULL, headers TEXT NOT NULL, msg_id TEXT NOT NULL, stream TEXT NOT NULL,"
    " sequence INTEGER NOT NULL, stored_at INTEGER NOT NULL, reason TEXT NOT NULL,"
    " failures INTEGER NOT NULL, parked_at INTEGER NOT NULL, payload BLOB NOT NULL);"
    "CREATE INDEX dead_letter_consumer ON dead_letter(consumer);";

static const char rows_1[] =
    "INSERT INTO inbox_position VALUES('notify', 'AUTH', 1, 7);"
    "INSERT INTO dead_letter VALUES(3, 'notify', 'auth.user.created',"
    " 'waybill-source: 0123456789ABCDEF' || char(10) || 'waybill-row: 42' || char(10) ||"
    " 'waybill-key: user 17: x', 'id-42', 'AUTH', 5, 6, 'no luck', 7, 8, x'610062');"
    "INSERT INTO dead_letter VALUES(5, 'notify', 'auth.user.created', 'waybill-row: 42',"
    " 'f', 'AUTH', 6, 7, 'bad', 8, 9, x'');"
    "INSERT INTO dead_letter VALUES(9, 'notify', 'x', '', '', 'X', 6, 7, '', 8, 9, x'');"
    "DELETE FROM dead_letter WHERE id = 9;";

static int setup(void **state)
{
    (void)state;
    fixture_open();
    assert_ok(db_exec(db, version_1, NULL));
    return 0;
}

static void migrate(void)
{
    struct wb_why why = {""};

    if (inbox_attach(db_handle(db), "notify", &inbox, &why) != WB_OK)
        fail_msg("%s", why.text);
    inbox_detach(inbox);
    inbox = NULL;
}

static void inbox_attach_to_old_tables_keeps_dead_letters_and_finds_their_identity(void **state)
{
    (void)state;
    assert_ok(db_exec(db, rows_1, NULL));
    migrate();
    assert_int_equal(query("SELECT count(*) FROM dead_letter"), 2);
    assert_int_equal(
        query("SELECT count(*) FROM dead_letter WHERE id = 3 AND consumer = 'notify'"
              " AND state = 'parked' AND next_at IS NULL AND key = 'user 17: x'"
              " AND source = '0123456789abcdef' AND row_id = 42 AND fingerprint = ''"
              " AND subject = 'auth.user.created' AND msg_id = 'id-42' AND stream = 'AUTH'"
              " AND sequence = 5 AND stored_at = 6 AND reason = 'no luck' AND failures = 7"
              " AND parked_at = 8 AND payload = x'610062' AND headers LIKE 'waybill-source: %'"),
        1);
    assert_int_equal(query("SELECT count(*) FROM dead_letter WHERE id = 5 AND key = ''"
                           " AND source = '' AND row_id = 0"),
                     1);
    assert_int_equal(query("SELECT letters FROM dead_letter_total"), 2);
    assert_int_equal(query("SELECT bytes - (SELECT sum(length(CAST(headers AS BLOB)) +"
                           " length(payload)) FROM dead_letter) FROM dead_letter_total"),
                     0);
    assert_int_equal(query("SELECT sequence FROM inbox_position WHERE mark = 0"), 7);
    assert_int_equal(query("SELECT version FROM waybill_schema WHERE component = 'inbox'"), 2);
}

static void inbox_attach_to_old_tables_does_not_use_a_number_of_a_dead_letter_again(void **state)
{
    static const char add[] =
        "INSERT INTO dead_letter(consumer, subject, headers, msg_id, stream, sequence, stored_at,"
        " reason, failures, parked_at, payload) VALUES('a', 's', '', '', 'S', 1, 1, '', 1, 1, x'')";

    (void)state;
    assert_ok(db_exec(db, rows_1, NULL));
    assert_ok(db_exec(db, "DELETE FROM dead_letter", NULL));
    migrate();
    assert_ok(db_exec(db, add, NULL));
    assert_int_equal(query("SELECT id FROM dead_letter"), 10);
}

static void inbox_attach_to_empty_old_tables_and_again_works(void **state)
{
    (void)state;
    migrate();
    migrate();
    assert_int_equal(query("SELECT count(*) FROM dead_letter"), 0);
    assert_int_equal(query("SELECT count(*) FROM sqlite_schema WHERE tbl_name LIKE 'dead_letter%'"),
                     8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(inbox_attach_to_old_tables_keeps_dead_letters_and_finds_their_identity),
        T(inbox_attach_to_old_tables_does_not_use_a_number_of_a_dead_letter_again),
        T(inbox_attach_to_empty_old_tables_and_again_works),
#undef T
    };
    return cmocka_run_group_tests_name("inbox_migrate", tests, NULL, NULL);
}
