/* migrations.h: the texts of schema/store/, embedded by the generator.
 *
 * lh_migrations[i] brings a database from version i to i + 1 (the version is
 * SQLite's user_version). Run each in its own transaction.
 */
#ifndef LIGHTHOUSE_MIGRATIONS_H
#define LIGHTHOUSE_MIGRATIONS_H

extern const char *const lh_migrations[];
extern const int lh_migration_count;

#endif
